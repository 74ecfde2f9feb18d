"""Meters of third parties, found by the entry point group that their distributions declare."""

import contextlib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from collectors.base import Collector, Domain, NowNs
from collectors.errors import CollectorError, ReadFailed

GROUP = "melodi.collectors"


def found() -> tuple[EntryPoint, ...]:
    """The meters that are installed, by name; none of them is imported yet."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)))


def distribution(entry: EntryPoint) -> str:
    """What to uninstall to be rid of it."""
    return "an unnamed distribution" if entry.dist is None else entry.dist.name


def open_plugin(entry: EntryPoint, *, now_ns: NowNs, sysfs_root: Path) -> Collector:
    """Open the meter and prove it by a read.

    Whatever goes wrong in it is a CollectorError: its own as it is, any other as ReadFailed.
    """
    opened: Collector | None = None
    try:
        opened = entry.load()(now_ns=now_ns, sysfs_root=sysfs_root)
        _prove(opened, entry.name)
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        if opened is not None:
            with contextlib.suppress(Exception):
                opened.close()
        if isinstance(error, CollectorError):
            raise
        reason = f"{entry.value} raised {type(error).__name__}: {error}"
        raise _broken(entry, reason) from error
    return opened


def refuse(entry: EntryPoint) -> ReadFailed:
    """Why a meter is not opened whose name another one has."""
    return _broken(entry, f"another meter is called {entry.name!r} already")


def _broken(entry: EntryPoint, reason: str) -> ReadFailed:
    return ReadFailed(reason, remedy=f"mend or uninstall {distribution(entry)}")


def _prove(collector: Collector, name: str) -> None:
    """Raises where it is not what `Collector` promises, or gives no reading."""
    if collector.name != name:
        raise TypeError(f"it calls itself {collector.name!r}, its entry point {name!r}")
    if not all(isinstance(domain, Domain) for domain in collector.domains):
        raise TypeError("its domains are not of the type Domain")
    known = {domain.name for domain in collector.domains}
    if not {reading.domain for reading in collector.read().values} & known:
        raise ValueError("a read gave no value of its domains")
