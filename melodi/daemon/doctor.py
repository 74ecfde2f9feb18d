"""What can be measured here, and how to mend what cannot."""

import asyncio
import time
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

from collectors.base import Domain
from collectors.refresh import Refresh
from collectors.registry import Probe
from melodi.clock import Clock
from melodi.config import Settings
from melodi.daemon.backends import Backends
from melodi.daemon.discovery import discovery_of
from melodi.daemon.meter_report import listen, report, seen_by
from melodi.daemon.meters import probe_meters
from melodi.sampling.meters import EnergyCurve


async def examine(settings: Settings, *, clock: Clock) -> dict[str, Any]:
    """Try every meter and ask every backend (DESIGN: the JSON of `melodi doctor`).

    An estimate is not a measurement, and what may not be added measures no request: with nothing
    else, `measurable` is False.
    """
    probes = await asyncio.to_thread(probe_meters, settings, clock)
    seen = await asyncio.gather(
        *(asyncio.to_thread(listen, one, clock, time.sleep) for one in probes)
    )
    backends = Backends(settings.backends, _domains(probes))
    await asyncio.to_thread(_find_processes, backends, probes, clock)
    listing = await backends.listing()
    for one in probes:
        if one.collector is not None:
            one.collector.close()
    return _findings(probes, ChainMap(*seen), listing)


async def examine_open(
    probes: Sequence[Probe],
    curves: Mapping[str, EnergyCurve],
    backends: Backends,
    *,
    now_ns: int,
) -> dict[str, Any]:
    """As `examine`, of meters that are open and read already: nothing is opened twice."""
    seen = {name: seen_by(curve, now_ns) for name, curve in curves.items()}
    return _findings(probes, seen, await backends.listing())


def _findings(
    probes: Sequence[Probe], seen: Mapping[str, Refresh], backends: list[dict[str, Any]]
) -> dict[str, Any]:
    domains = _domains(probes)
    return {
        "collectors": [report(one, seen) for one in probes],
        "backends": backends,
        "measurable": any(one.summable and not one.estimated for one in domains),
    }


def _find_processes(backends: Backends, probes: Sequence[Probe], clock: Clock) -> None:
    """Look once where the backends run."""
    discovery_of(backends, lambda: probes, clock=clock, on_usage=lambda _: None).look()


def _domains(probes: Sequence[Probe]) -> list[Domain]:
    return [domain for one in probes for domain in one.domains]
