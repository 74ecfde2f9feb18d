"""What can be measured here, and how to mend what cannot."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from collectors.base import Domain
from collectors.refresh import Refresh, observe_refresh
from collectors.registry import Probe
from melodi.clock import NS_PER_SECOND, Clock
from melodi.config import Settings
from melodi.daemon.backends import Backends
from melodi.daemon.meters import probe_meters
from melodi.sampling.meters import EnergyCurve

LISTEN_SECONDS = 1.5
STILL_SECONDS = 5
"""A meter whose value has not changed for so long stands still."""
EDGES_LOOKED_AT = 50


async def examine(settings: Settings, *, clock: Clock) -> dict[str, Any]:
    """Try every meter and ask every backend (DESIGN: the JSON of `melodi doctor`).

    An estimate is not a measurement: with nothing else, `measurable` is False.
    """
    probes = await asyncio.to_thread(probe_meters, settings, clock)
    collectors = await asyncio.gather(
        *(asyncio.to_thread(_examine_meter, one, clock) for one in probes)
    )
    backends = await Backends(settings.backends, _domains(probes)).listing()
    for one in probes:
        if one.collector is not None:
            one.collector.close()
    return {"collectors": collectors, "backends": backends, "measurable": _measurable(probes)}


async def examine_open(
    probes: Sequence[Probe],
    curves: Mapping[str, EnergyCurve],
    backends: Backends,
    *,
    now_ns: int,
) -> dict[str, Any]:
    """As `examine`, of meters that are open and read already: nothing is opened twice."""
    seen = {name: _seen(curve, now_ns) for name, curve in curves.items()}
    return {
        "collectors": [_report(one, seen) for one in probes],
        "backends": await backends.listing(),
        "measurable": _measurable(probes),
    }


def _measurable(probes: Sequence[Probe]) -> bool:
    return any(not domain.estimated for domain in _domains(probes))


def _seen(curve: EnergyCurve, now_ns: int) -> Refresh:
    """What the latest edges tell of a domain's refresh."""
    times = [edge.at_ns for edge in curve.edges[-EDGES_LOOKED_AT:]]
    lengths = [later - earlier for earlier, later in pairwise(times)]
    return Refresh(
        domain=curve.domain.name,
        moved=bool(times) and now_ns - times[-1] < STILL_SECONDS * NS_PER_SECOND,
        period_ns=round(median(lengths)) if lengths else None,
    )


def _domains(probes: Sequence[Probe]) -> list[Domain]:
    return [domain for one in probes for domain in one.domains]


def _examine_meter(found: Probe, clock: Clock) -> dict[str, Any]:
    seen: dict[str, Refresh] = {}
    if found.collector is not None:
        observed = observe_refresh(
            found.collector, LISTEN_SECONDS, now_ns=clock.monotonic_ns, sleep=time.sleep
        )
        seen = {one.domain: one for one in observed}
    return _report(found, seen)


def _report(found: Probe, seen: Mapping[str, Refresh]) -> dict[str, Any]:
    domains = [
        {
            "name": domain.name,
            "scope": domain.scope,
            "source": domain.source,
            "estimated": domain.estimated,
            "summable": domain.summable,
            "moving": seen[domain.name].moved,
            "refresh_seconds": _seconds(seen[domain.name].period_ns),
            "description": domain.description,
        }
        for domain in found.domains
    ]
    periods = [one["refresh_seconds"] for one in domains if one["refresh_seconds"] is not None]
    return {
        "name": found.name,
        "state": found.state,
        "domains": domains,
        "refresh_seconds": max(periods, default=None),
        "reason": found.reason,
        "remedy": found.remedy,
    }


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / NS_PER_SECOND
