"""What can be measured here, and how to mend what cannot."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from collectors.base import Domain
from collectors.refresh import Refresh, observe_refresh
from collectors.registry import Probe
from melodi.clock import NS_PER_SECOND, Clock
from melodi.config import Settings
from melodi.daemon.backends import Backends
from melodi.daemon.runtime import probe_meters

LISTEN_SECONDS = 1.5


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
    measurable = any(not domain.estimated for domain in _domains(probes))
    return {"collectors": collectors, "backends": backends, "measurable": measurable}


def _domains(probes: Sequence[Probe]) -> list[Domain]:
    return [domain for one in probes for domain in one.domains]


def _examine_meter(found: Probe, clock: Clock) -> dict[str, Any]:
    seen: dict[str, Refresh] = {}
    if found.collector is not None:
        observed = observe_refresh(
            found.collector, LISTEN_SECONDS, now_ns=clock.monotonic_ns, sleep=time.sleep
        )
        seen = {one.domain: one for one in observed}
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
