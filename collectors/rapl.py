"""Reads the RAPL counters of CPUs and memory through the kernel's powercap tree."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from collectors.base import (
    Conditions,
    Domain,
    Failure,
    Kind,
    Measure,
    NowNs,
    Reading,
    Readings,
)
from collectors.counter import DEFAULT_MAX_POWER_WATTS
from collectors.errors import NotPermitted, ReadFailed, Unavailable
from collectors.powercap import Zone, find_zones

_REFRESH_NS = 1_000_000
"""Intel's manual gives about 1 ms for the energy status registers (SDM 3B, "RAPL interfaces")."""

_RETRY_NS = 1_000_000_000
_MIRROR_PAUSE_SECONDS = 0.02

_ABSENT = (
    "on bare metal load the kernel module intel_rapl_common (AMD too); in a container mount "
    "/sys/devices/virtual/powercap read-only and set collectors.sysfs_root to its /sys; "
    "virtual machines and Arm hosts have no RAPL"
)
_GRANT = (
    "run melodi as a systemd service with AmbientCapabilities=CAP_DAC_READ_SEARCH; or let a udev "
    "rule give the energy_uj files, and only those, the group powercap and mode 0440 at every "
    "boot, and put melodi's user into that group"
)
_RETRIED = "the zone is looked for again every second"


class _Meter:
    """One zone's counter, kept open; found and opened again after it went away."""

    def __init__(self, domain: Domain, zone: Zone, *, root: Path, now_ns: NowNs) -> None:
        self.domain = domain
        self._zone = zone
        self._root = root
        self._now_ns = now_ns
        self._retry_at_ns = 0
        self._descriptor: int | None = zone.open_energy()

    def read(self) -> Reading:
        """The counter now; raises ReadFailed where the zone is away or gives no number."""
        descriptor = self._descriptor if self._descriptor is not None else self._reopen()
        before_ns = self._now_ns()
        try:
            energy_uj = int(os.pread(descriptor, 32, 0))
        except (OSError, ValueError) as error:
            self.close()
            raise ReadFailed(f"{self.domain.name}: {error}", remedy=_RETRIED) from error
        half_width_ns = (self._now_ns() - before_ns) // 2
        return Reading(self.domain.name, before_ns + half_width_ns, half_width_ns, energy_uj)

    def close(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # the zone behind it may be gone already
                os.close(self._descriptor)
            self._descriptor = None

    def _reopen(self) -> int:
        """Open the zone of the same name, which may have come back under another index."""
        now_ns = self._now_ns()
        if now_ns < self._retry_at_ns:
            raise ReadFailed(f"{self.domain.name} is away", remedy=_RETRIED)
        self._retry_at_ns = now_ns + _RETRY_NS
        for zone in find_zones(self._root):
            if zone.identity == self._zone.identity:
                try:
                    self._descriptor = zone.open_energy()
                except OSError as error:
                    raise ReadFailed(f"{self.domain.name}: {error}", remedy=_RETRIED) from error
                return self._descriptor
        raise ReadFailed(f"{self.domain.name}: zone {self._zone.name} is gone", remedy=_RETRIED)
