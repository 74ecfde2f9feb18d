"""Reads the RAPL counters of CPUs and memory through the kernel's powercap tree."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from collectors.base import Conditions, Domain, Kind, Measure, NowNs, Readings
from collectors.counter import DEFAULT_MAX_POWER_WATTS
from collectors.errors import ReadFailed, Unavailable
from collectors.meters import open_each, read_each
from collectors.powercap import Zone, find_zones
from collectors.surroundings import Surroundings, surroundings
from collectors.sysfs import FileMeter

# About 1 ms for every energy status register, by Intel's manual (SDM volume 3, "RAPL Interfaces").
_REFRESH_NS = 1_000_000
_MIRROR_PAUSE_SECONDS = 0.02

_ON_ARM = "nothing to do: Arm processors have no RAPL; NVIDIA's Grace tells its power through hwmon"
_IN_VIRTUAL_MACHINE = "nothing to do: hypervisors keep these counters from virtual machines"
_IN_CONTAINER = (
    "start the container with --volume "
    "/sys/devices/virtual/powercap:/host/sys/devices/virtual/powercap:ro "
    "--env MELODI_COLLECTORS__SYSFS_ROOT=/host/sys"
)
_ON_METAL = "load the kernel module, AMD too: sudo modprobe intel_rapl_msr"
GRANT = (
    "run the daemon as a systemd service with AmbientCapabilities=CAP_DAC_READ_SEARCH; or have a "
    "udev rule give the energy_uj files, and nothing else, the group powercap and mode 0440 at "
    "every boot, and add the daemon's user to that group; in a container run as root, or with "
    "--group-add and that group's number"
)


class _Meter(FileMeter):
    """One zone's counter."""

    def __init__(self, zone: Zone, *, sysfs_root: Path, now_ns: NowNs) -> None:
        def find() -> Path | None:
            """The zone may have come back under another index."""
            zones = find_zones(sysfs_root)
            return next((one.energy_path for one in zones if one.domain == zone.domain), None)

        super().__init__(_domain(zone), find, grant=GRANT, now_ns=now_ns)
        self.die_of = zone.die_of


class RaplCollector:
    """The packages, memory and platform counters that this process may read.

    Raises Unavailable where there is no zone, NotPermitted where there are and they may not be
    read, ReadFailed where they may be and none gives a number.
    """

    def __init__(
        self,
        *,
        now_ns: NowNs,
        sysfs_root: Path = Path("/sys"),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        zones = find_zones(sysfs_root)
        if not zones:
            raise Unavailable(f"no RAPL zone under {sysfs_root}", remedy=absent(surroundings()))
        meters, self.unproven = open_each(
            lambda zone: _Meter(zone, sysfs_root=sysfs_root, now_ns=now_ns), zones
        )
        """Why zones that exist are not among the domains."""
        try:
            self._meters = _without_mirrors(meters, sleep)
        except ReadFailed:
            for meter in meters:
                meter.close()
            raise

    @property
    def name(self) -> str:
        return "rapl"

    @property
    def domains(self) -> tuple[Domain, ...]:
        return tuple(meter.domain for meter in self._meters)

    def read(self) -> Readings:
        return read_each(self._meters)

    def conditions(self) -> tuple[Conditions, ...]:
        return ()

    def close(self) -> None:
        for meter in self._meters:
            meter.close()


def absent(where: Surroundings) -> str:
    """What to do where there is no zone."""
    if where.arm:
        return _ON_ARM
    if where.virtual_machine:
        return _IN_VIRTUAL_MACHINE
    return _IN_CONTAINER if where.container else _ON_METAL


def _domain(zone: Zone) -> Domain:
    return Domain(
        name=zone.domain,
        kind=zone.kind,
        scope=zone.domain.partition(":")[0],
        source="rapl:powercap",
        measure=Measure.COUNTER,
        range_uj=zone.range_uj,
        refresh_ns=_REFRESH_NS,
        max_power_watts=None if zone.kind is Kind.PLATFORM else DEFAULT_MAX_POWER_WATTS,
        summable=zone.kind is not Kind.PLATFORM,
    )


def _without_mirrors(meters: list[_Meter], sleep: Callable[[float], None]) -> list[_Meter]:
    """The meters, dies of a package or their memories that show one counter merged into one.

    Some AMD processors list a zone for each die, and all of them read the counter of the socket.
    """
    kept: list[_Meter] = []
    for meter in meters:
        whole = meter.die_of
        rivals = [other for other in kept if whole and other.die_of == whole]
        original = next((other for other in rivals if _mirrors(other, meter, sleep)), None)
        if original is None:
            kept.append(meter)
            continue
        meter.close()
        original.domain = replace(original.domain, description="seen through several dies")
    dies = Counter(meter.die_of for meter in kept)
    for meter in kept:
        if meter.domain.description and dies[meter.die_of] == 1:
            meter.domain = replace(meter.domain, name=str(meter.die_of))
    return kept


def _mirrors(one: _Meter, other: _Meter, sleep: Callable[[float], None]) -> bool:
    """Whether `other` lies between two readings of `one`, now and after it has moved on."""

    def lies_between() -> bool:
        before_uj, between_uj, after_uj = one.value(), other.value(), one.value()
        return before_uj <= between_uj <= after_uj

    if not lies_between():
        return False
    sleep(_MIRROR_PAUSE_SECONDS)
    return lies_between()
