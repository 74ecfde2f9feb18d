"""What one meter can do here: which of its domains are read, how they move, and what to mend."""

import os
from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

from collectors.base import Domain
from collectors.refresh import Refresh, observe_refresh
from collectors.registry import Probe, State
from melodi.clock import NS_PER_SECOND, Clock
from melodi.sampling.meters import EnergyCurve
from melodi.sampling.power import latest_power

LISTEN_SECONDS = 1.5
STILL_SECONDS = 5
"""A meter whose value has not changed for so long stands still."""
EDGES_LOOKED_AT = 50
ROOT_ONLY = {"rapl", "pyrapl"}
"""Meters whose files the kernel keeps for root."""


def listen(found: Probe, clock: Clock, sleep: Callable[[float], None]) -> dict[str, Refresh]:
    """Watch an open meter for LISTEN_SECONDS: what its domains showed, by name."""
    if found.collector is None:
        return {}
    observed = observe_refresh(
        found.collector, LISTEN_SECONDS, now_ns=clock.monotonic_ns, sleep=sleep
    )
    return {one.domain: one for one in observed}


def seen_by(curve: EnergyCurve, now_ns: int) -> Refresh:
    """What the latest edges of a running daemon's curve tell of its domain."""
    times = [edge.at_ns for edge in curve.edges.latest(EDGES_LOOKED_AT)]
    lengths = [later - earlier for earlier, later in pairwise(times)]
    power = latest_power(curve, now_ns)
    return Refresh(
        domain=curve.domain.name,
        moved=bool(times) and now_ns - times[-1] < STILL_SECONDS * NS_PER_SECOND,
        period_ns=round(median(lengths)) if lengths else None,
        mean_watts=None if power is None else power.mean_watts,
    )


def report(found: Probe, seen: Mapping[str, Refresh]) -> dict[str, Any]:
    """One meter in the JSON of `melodi doctor` (DESIGN, section 8)."""
    domains = [_domain(domain, seen.get(domain.name)) for domain in found.domains]
    periods = [one["refresh_seconds"] for one in domains if one["refresh_seconds"] is not None]
    return {
        "name": found.name,
        "state": found.state,
        "permission": _permission(found),
        "domains": domains,
        "refresh_seconds": max(periods, default=None),
        "reason": found.reason,
        "remedy": found.remedy,
    }


def _domain(domain: Domain, seen: Refresh | None) -> dict[str, Any]:
    seen = seen or Refresh(domain.name, moved=False, period_ns=None)
    return {
        "name": domain.name,
        "kind": domain.kind,
        "scope": domain.scope,
        "source": domain.source,
        "measure": domain.measure,
        "estimated": domain.estimated,
        "summable": domain.summable,
        "moving": seen.moved,
        "mean_watts": seen.mean_watts,
        "refresh_seconds": _seconds(seen.period_ns),
        "assumed_refresh_seconds": _seconds(domain.refresh_ns),
        "description": domain.description,
    }


def _permission(found: Probe) -> str | None:
    """Whether it may be read; None: there is nothing to be read, or no telling."""
    if found.state is State.DENIED:
        return "denied"
    if found.state is not State.OK:
        return None
    return "as_root" if found.name in ROOT_ONLY and os.geteuid() == 0 else "granted"


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / NS_PER_SECOND
