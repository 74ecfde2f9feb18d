"""The collectors by name, and which of them can be read on this host."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from collectors.base import Collector, Domain, NowNs
from collectors.errors import CollectorError, NotPermitted, Unavailable
from collectors.estimate import EstimateCollector
from collectors.nvml import NvmlCollector
from collectors.rapl import RaplCollector
from collectors.simulated import RemoteSimulatedCollector


class State(StrEnum):
    """What became of an attempt to open a collector."""

    OK = "ok"
    ABSENT = "absent"
    DENIED = "denied"
    FAILING = "failing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One collector that was tried; whoever takes an open `collector` closes it."""

    name: str
    state: State
    collector: Collector | None = None
    reason: str | None = None
    """Why it cannot be read or, where it is ok, why some of its domains cannot."""
    remedy: str | None = None

    @property
    def domains(self) -> tuple[Domain, ...]:
        return () if self.collector is None else self.collector.domains


@dataclass(frozen=True, slots=True, kw_only=True)
class _Host:
    sysfs_root: Path
    now_ns: NowNs
    simulated_url: str | None


_Opened = tuple[Collector, tuple[CollectorError, ...]]
"""A collector, and why some of its domains cannot be read."""


def _open_nvml(host: _Host) -> _Opened:
    collector = NvmlCollector(now_ns=host.now_ns)
    return collector, collector.unproven


def _open_rapl(host: _Host) -> _Opened:
    collector = RaplCollector(now_ns=host.now_ns, sysfs_root=host.sysfs_root)
    return collector, collector.unproven


def _open_simulated(host: _Host) -> _Opened:
    if host.simulated_url is None:
        raise Unavailable("no simulator's URL is set", remedy="set one, or leave `simulated` out")
    return RemoteSimulatedCollector(host.simulated_url, now_ns=host.now_ns), ()


def _open_estimate(host: _Host) -> _Opened:
    return EstimateCollector(now_ns=host.now_ns), ()


COLLECTORS: dict[str, Callable[[_Host], _Opened]] = {
    "nvml": _open_nvml,
    "rapl": _open_rapl,
    "simulated": _open_simulated,
    "estimate": _open_estimate,
}
"""Every collector by the name that settings use."""


def probe(
    use: str | Sequence[str],
    *,
    now_ns: NowNs,
    sysfs_root: Path = Path("/sys"),
    simulated_url: str | None = None,
) -> list[Probe]:
    """Open the collectors named in `use`, or with "auto" all that this host may have.

    "auto" tries nvml, rapl and, where a URL is given, simulated; the estimate stands in only
    where none of them opens. Raises ValueError for an unknown name; one that cannot be read is
    a Probe that says why.
    """
    host = _Host(sysfs_root=sysfs_root, now_ns=now_ns, simulated_url=simulated_url)
    if use != "auto":
        return [_probe(name, host) for name in _known(use)]
    names = ["nvml", "rapl"] + ([] if simulated_url is None else ["simulated"])
    probes = [_probe(name, host) for name in names]
    if not any(found.collector for found in probes):
        probes.append(_probe("estimate", host))
    return probes


def _known(use: str | Sequence[str]) -> list[str]:
    names = [use] if isinstance(use, str) else list(dict.fromkeys(use))
    for name in names:
        if name not in COLLECTORS:
            known = ", ".join(COLLECTORS)
            raise ValueError(f'no collector is called {name!r}; use "auto" or any of {known}')
    return names


def _probe(name: str, host: _Host) -> Probe:
    try:
        collector, unproven = COLLECTORS[name](host)
    except CollectorError as error:
        return Probe(name=name, state=_state(error), reason=error.reason, remedy=error.remedy)
    return Probe(
        name=name,
        state=State.OK,
        collector=collector,
        reason="; ".join(error.reason for error in unproven) or None,
        remedy=unproven[0].remedy if unproven else None,
    )


def _state(error: CollectorError) -> State:
    if isinstance(error, Unavailable):
        return State.ABSENT
    return State.DENIED if isinstance(error, NotPermitted) else State.FAILING
