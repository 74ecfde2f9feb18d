"""The collectors by name, and which of them can be read on this host."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import EntryPoint
from pathlib import Path

from collectors import plugins
from collectors.base import Collector, Domain, NowNs
from collectors.errors import CollectorError, NotPermitted, Unavailable
from collectors.estimate import EstimateCollector
from collectors.hwmon import HwmonCollector
from collectors.nvml import NvmlCollector
from collectors.overlap import NotAdded, left_out
from collectors.pyrapl import PyraplCollector
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
    elsewhere: tuple[Domain, ...] = ()
    """The domains of a collector that another process holds open."""

    @property
    def domains(self) -> tuple[Domain, ...]:
        return self.elsewhere if self.collector is None else self.collector.domains


@dataclass(frozen=True, slots=True, kw_only=True)
class _Host:
    sysfs_root: Path
    now_ns: NowNs
    simulated_url: str | None


_Opened = tuple[Collector, tuple[CollectorError, ...]]
"""A collector, and why some of its domains cannot be read."""

_Open = Callable[[_Host], _Opened]


def _open_nvml(host: _Host) -> _Opened:
    collector = NvmlCollector(now_ns=host.now_ns)
    return collector, collector.unproven


def _open_rapl(host: _Host) -> _Opened:
    collector = RaplCollector(now_ns=host.now_ns, sysfs_root=host.sysfs_root)
    return collector, collector.unproven


def _open_hwmon(host: _Host) -> _Opened:
    collector = HwmonCollector(now_ns=host.now_ns, sysfs_root=host.sysfs_root)
    return collector, collector.unproven


def _open_pyrapl(host: _Host) -> _Opened:
    if host.sysfs_root != Path("/sys"):
        reason = f"pyRAPL always reads /sys, and the sysfs root is {host.sysfs_root}"
        raise Unavailable(reason, remedy="use the collector rapl instead")
    return PyraplCollector(now_ns=host.now_ns), ()


def _open_simulated(host: _Host) -> _Opened:
    if host.simulated_url is None:
        raise Unavailable("no simulator's URL is set", remedy="set one, or leave `simulated` out")
    return RemoteSimulatedCollector(host.simulated_url, now_ns=host.now_ns), ()


def _open_estimate(host: _Host) -> _Opened:
    return EstimateCollector(now_ns=host.now_ns, sysfs_root=host.sysfs_root), ()


COLLECTORS: dict[str, _Open] = {
    "nvml": _open_nvml,
    "rapl": _open_rapl,
    "hwmon": _open_hwmon,
    "pyrapl": _open_pyrapl,
    "simulated": _open_simulated,
    "estimate": _open_estimate,
}
"""Every collector of ours by the name that settings use."""

_MAY_GROW = ("nvml", "rapl", "hwmon")
"""Those that may be open twice, and find a GPU or a zone that was not there at first."""


def probe(
    use: str | Sequence[str],
    *,
    now_ns: NowNs,
    sysfs_root: Path = Path("/sys"),
    simulated_url: str | None = None,
) -> list[Probe]:
    """Open the collectors named in `use`, or with "auto" all that this host may have.

    "auto" tries nvml, rapl, hwmon, those of third parties that are installed and, where a URL is
    given, simulated; the estimate stands in only where none of them gives a domain to be added.
    Raises ValueError for an unknown name; one that cannot be read is a Probe that says why.
    """
    host = _Host(sysfs_root=sysfs_root, now_ns=now_ns, simulated_url=simulated_url)
    known = _known()
    if use != "auto":
        return _apart([_probe(name, known[name], host) for name in _named(use, known)])
    names = ["nvml", "rapl", "hwmon"] + ([] if simulated_url is None else ["simulated"])
    names += [name for name in known if name not in COLLECTORS]
    probes = [_probe(name, known[name], host) for name in names]
    if not any(domain.summable for found in probes for domain in found.domains):
        probes.append(_probe("estimate", _open_estimate, host))
    return _apart(probes)


def probe_again(
    probes: Sequence[Probe],
    *,
    use: str | Sequence[str],
    now_ns: NowNs,
    sysfs_root: Path = Path("/sys"),
    simulated_url: str | None = None,
) -> list[Probe]:
    """The meters as they are now: those that could not be opened are tried anew.

    An open collector stays as it is, and what it measures no other may measure too, but where one
    of ours would find more domains by now a new one of the same name takes its place: whoever
    holds the old one closes it. One that a new one contains comes back in a Probe whose domains
    are no longer summable. With "auto" the estimate is left out once a sensor's joules may be
    added up; it too is for its holder to close.
    """
    host = _Host(sysfs_root=sysfs_root, now_ns=now_ns, simulated_url=simulated_url)
    known = _known()
    guesses = [found for found in probes if use == "auto" and found.name == "estimate"]
    before = [found for found in probes if found not in guesses]
    tried = [_try_again(found, known, host) for found in before]
    if guesses and not any(domain.summable for found in tried for domain in found.domains):
        before, tried = before + guesses, tried + guesses
    kept = [new for new, old in zip(tried, before, strict=True) if new is old and new.collector]
    return [
        old if new.collector is None and old.collector is not None else new
        for new, old in zip(_apart(tried, held=kept), before, strict=True)
    ]


def _try_again(found: Probe, known: dict[str, _Open], host: _Host) -> Probe:
    """The probe of a new attempt where that may give more, else the one there was."""
    if found.name not in known or (found.collector and found.name not in _MAY_GROW):
        return found
    new = _probe(found.name, known[found.name], host)
    if found.collector is None or {one.name for one in new.domains} > {
        one.name for one in found.domains
    }:
        return new
    if new.collector is not None:
        new.collector.close()
    return found


def _known() -> dict[str, _Open]:
    """Ours and those of third parties, none of which may take the name of another."""
    known = dict(COLLECTORS)
    for entry in plugins.found():
        taken = entry.name in known
        name = f"{entry.name}@{plugins.distribution(entry)}" if taken else entry.name
        known[name] = _refuser(entry) if taken else _plugin_opener(entry)
    return known


def _plugin_opener(entry: EntryPoint) -> _Open:
    def open_it(host: _Host) -> _Opened:
        return plugins.open_plugin(entry, now_ns=host.now_ns, sysfs_root=host.sysfs_root), ()

    return open_it


def _refuser(entry: EntryPoint) -> _Open:
    def refuse(_: _Host) -> _Opened:
        raise plugins.refuse(entry)

    return refuse


def _named(use: str | Sequence[str], known: dict[str, _Open]) -> list[str]:
    names = [use] if isinstance(use, str) else list(dict.fromkeys(use))
    for name in names:
        if name not in known:
            choice = ", ".join(known)
            raise ValueError(f'no collector is called {name!r}; use "auto" or any of {choice}')
    return names


def _probe(name: str, open_it: _Open, host: _Host) -> Probe:
    try:
        collector, unproven = open_it(host)
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


def _apart(probes: Sequence[Probe], *, held: Sequence[Probe] = ()) -> list[Probe]:
    """The probes, every domain measured by one of them, and summable in one only.

    Those `held` were open before, and come before the others.
    """
    measured_by = {domain.name: found.name for found in held for domain in found.domains}
    unique = [
        found if any(found is one for one in held) else _unless_repeated(found, measured_by)
        for found in probes
    ]
    alone = left_out(domain for found in unique for domain in found.domains)
    return [
        replace(found, collector=NotAdded(found.collector, alone))
        if found.collector and alone & {domain.name for domain in found.domains}
        else found
        for found in unique
    ]


def _unless_repeated(found: Probe, measured_by: dict[str, str]) -> Probe:
    """The probe, closed and failing where a domain of it is measured already."""
    clash = next((one.name for one in found.domains if one.name in measured_by), None)
    if clash is None or found.collector is None:
        measured_by.update({domain.name: found.name for domain in found.domains})
        return found
    found.collector.close()
    reason = f"{clash} is measured by {measured_by[clash]} already"
    remedy = "name only one of the two in the settings, and restart"
    return Probe(name=found.name, state=State.FAILING, reason=reason, remedy=remedy)
