"""Reads RAPL through the package pyRAPL, for comparison; `rapl` reads the same and more."""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collectors.base import Conditions, Domain, Kind, Measure, NowNs, Reading, Readings
from collectors.counter import DEFAULT_MAX_POWER_WATTS
from collectors.errors import NotPermitted, ReadFailed, Unavailable
from collectors.powercap import find_zones
from collectors.rapl import GRANT

_INSTALL = "pip install 'melodi-energy[pyrapl]', or use the collector rapl, which needs nothing"
_USE_RAPL = "use the collector rapl instead, which reads such machines too"
_KINDS = (("package", Kind.CPU), ("dram", Kind.DRAM))
"""In the order in which pyRAPL lists each socket's counters."""


class PyraplCollector:
    """The packages and their memory as pyRAPL's sensor gives them: raw counters, read together.

    pyRAPL gives up on machines with two dies to a package, and does not know where a counter
    wraps: that is read from `sysfs_root`, while pyRAPL itself always reads /sys.
    Raises Unavailable where it is not installed or finds nothing, NotPermitted where it may not
    read, ReadFailed where the counters give no number.
    """

    def __init__(self, *, now_ns: NowNs, sysfs_root: Path = Path("/sys")) -> None:
        self._now_ns = now_ns
        self._sensor: Any = _open_sensor()
        try:
            self._domains = _domains(self._energies_uj(), sysfs_root)
        except ReadFailed:
            self.close()
            raise

    @property
    def name(self) -> str:
        return "pyrapl"

    @property
    def domains(self) -> tuple[Domain, ...]:
        return tuple(self._domains.values())

    def read(self) -> Readings:
        before_ns = self._now_ns()
        energies_uj = self._energies_uj()
        half_width_ns = (self._now_ns() - before_ns) // 2
        at_ns = before_ns + half_width_ns
        return Readings(
            tuple(
                Reading(domain.name, at_ns, half_width_ns, energies_uj[place])
                for place, domain in self._domains.items()
            )
        )

    def conditions(self) -> tuple[Conditions, ...]:
        return ()

    def close(self) -> None:
        for api in self._sensor._device_api.values():  # noqa: SLF001  it has no close of its own
            for file in api._sys_files:  # noqa: SLF001
                file.close()

    def _energies_uj(self) -> list[int]:
        try:
            return [int(energy_uj) for energy_uj in self._sensor.energy()]
        except (OSError, ValueError) as error:
            raise ReadFailed(f"pyRAPL: {error}", remedy=_USE_RAPL) from error


def _open_sensor() -> Any:
    with _quiet():
        try:
            pyrapl = importlib.import_module("pyRAPL")
        except ImportError as error:
            raise Unavailable("the package pyRAPL is not installed", remedy=_INSTALL) from error
        try:
            return pyrapl.Sensor()
        except PermissionError as error:
            raise NotPermitted(f"pyRAPL: {error}", remedy=GRANT) from error
        except (OSError, pyrapl.PyRAPLException) as error:
            reason = f"pyRAPL finds no counters that it can read ({error!r})"
            raise Unavailable(reason, remedy=_USE_RAPL) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Undo what pyRAPL does on the side: it logs, gives the root logger a handler, leaks files."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    root.addFilter(_nothing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            root.removeFilter(_nothing)
            root.handlers[:] = handlers


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _domains(energies_uj: list[int], sysfs_root: Path) -> dict[int, Domain]:
    """By their place in pyRAPL's list; it says -1 of a socket or a memory that is not there."""
    ranges_uj = {zone.domain: zone.range_uj for zone in find_zones(sysfs_root)}
    found = {}
    for place, energy_uj in enumerate(energies_uj):
        socket, which = divmod(place, len(_KINDS))
        scope, kind = _KINDS[which]
        name = f"{scope}:{socket}"
        if energy_uj >= 0:
            found[place] = Domain(
                name=name,
                kind=kind,
                scope=scope,
                source="pyrapl:sensor",
                measure=Measure.COUNTER,
                range_uj=ranges_uj.get(name),
                max_power_watts=DEFAULT_MAX_POWER_WATTS,
            )
    return found
