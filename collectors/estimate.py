"""A guess at CPU and memory energy, for hosts where nothing measures it."""

import os
from collections.abc import Callable
from pathlib import Path

from collectors.base import Conditions, Domain, Kind, Measure, NowNs, Reading, Readings
from collectors.counter import DEFAULT_MAX_POWER_WATTS
from collectors.powercap import find_zones
from collectors.sysfs import number

BusySeconds = Callable[[], float]
"""CPU time spent on anything but idling since boot, summed over all logical processors."""

# Published thermal design powers run from about 2 W a hardware thread (large servers) to 8 W.
_WATTS_PER_PROCESSOR = 4.0
_IDLE_RATIO = 0.2
# Makers and other tools put a module of 8 GB at about 3 W; measurements are often far below.
_WATTS_PER_GIB = 0.375
_GIB = 2**30


class EstimateCollector:
    """All CPUs of this host as one counter, and all its memory as another.

    CPU: a line between idle and full power,
    energy(t) = idle_watts x t + (max_watts - idle_watts) x busy seconds / processors.
    Full power is the limit that the kernel shows for the packages under `sysfs_root`, which
    everybody may read, else a figure for each hardware thread. Memory: by its size, whatever is
    done with it.

    This measures nothing. Real power also depends on clock, voltage, instruction mix and memory,
    and both ends of the line are guesses unless given: expect errors of a factor of two, of
    memory of more. It says when the CPUs were busy, and is marked `estimated` so that no sum
    takes it for a sensor's.
    """

    def __init__(
        self,
        *,
        now_ns: NowNs,
        sysfs_root: Path = Path("/sys"),
        max_watts: float | None = None,
        idle_watts: float | None = None,
        busy_seconds: BusySeconds | None = None,
        processors: int | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        processors = processors or os.cpu_count() or 1
        if max_watts is None:
            max_watts = _limit_watts(sysfs_root) or _WATTS_PER_PROCESSOR * processors
        idle_watts = _IDLE_RATIO * max_watts if idle_watts is None else idle_watts
        if not 0 <= idle_watts <= max_watts:
            raise ValueError(
                f"idle power {idle_watts:g} W and full power {max_watts:g} W of the CPU: "
                "give 0 <= idle <= full"
            )
        self._now_ns = now_ns
        self._busy_seconds = busy_seconds or _busy_seconds
        self._idle_watts = idle_watts
        self._watts_per_busy_processor = (max_watts - idle_watts) / processors
        self._start_ns = now_ns()
        self._start_busy_seconds = self._busy_seconds()
        self._last_uj = 0
        self._cpu = _cpu(idle_watts, max_watts)
        self._memory = _memory(memory_bytes or _memory_bytes())

    @property
    def name(self) -> str:
        return "estimate"

    @property
    def domains(self) -> tuple[Domain, ...]:
        return (self._cpu, self._memory)

    def read(self) -> Readings:
        at_ns = self._now_ns()
        passed_us = (at_ns - self._start_ns) / 1_000
        busy_seconds = self._busy_seconds() - self._start_busy_seconds
        cpu_uj = self._idle_watts * passed_us + self._watts_per_busy_processor * busy_seconds * 1e6
        # A processor that is taken offline takes its busy time with it; energy does not fall.
        self._last_uj = max(self._last_uj, round(cpu_uj))
        memory_uj = round((self._memory.max_power_watts or 0) * passed_us)
        return Readings(
            (
                Reading(self._cpu.name, at_ns, 0, self._last_uj),
                Reading(self._memory.name, at_ns, 0, memory_uj),
            )
        )

    def conditions(self) -> tuple[Conditions, ...]:
        return ()

    def close(self) -> None:
        """Nothing is held open."""


def _cpu(idle_watts: float, max_watts: float) -> Domain:
    return Domain(
        name="package:0",
        kind=Kind.CPU,
        scope="package",
        source="estimate:cpu_utilisation",
        measure=Measure.COUNTER,
        refresh_ns=1_000_000_000 // os.sysconf("SC_CLK_TCK"),
        max_power_watts=max_watts,
        estimated=True,
        description=f"all CPUs, guessed between {idle_watts:g} and {max_watts:g} W",
    )


def _memory(size_bytes: int) -> Domain:
    gib = size_bytes / _GIB
    return Domain(
        name="dram:0",
        kind=Kind.DRAM,
        scope="dram",
        source="estimate:memory_size",
        measure=Measure.COUNTER,
        refresh_ns=1_000_000,
        max_power_watts=_WATTS_PER_GIB * gib,
        estimated=True,
        description=f"{gib:.0f} GiB of memory, guessed at {_WATTS_PER_GIB:g} W each",
    )


def _limit_watts(sysfs_root: Path) -> float | None:
    """The packages' long-term power limit; None where one of them shows none that can be true."""
    limits_uw = {
        zone.die_of or zone.domain: number(zone.path / "constraint_0_power_limit_uw")
        for zone in find_zones(sysfs_root)
        if zone.kind is Kind.CPU
    }
    watts = [limit_uw / 1e6 for limit_uw in limits_uw.values() if limit_uw]
    if not watts or len(watts) < len(limits_uw) or max(watts) > DEFAULT_MAX_POWER_WATTS:
        return None
    return sum(watts)


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _busy_seconds() -> float:
    import psutil

    times = psutil.cpu_times()
    # On Linux `user` and `nice` already hold the time of guests.
    return float(
        sum(
            getattr(times, field, 0.0)
            for field in ("user", "nice", "system", "irq", "softirq", "steal")
        )
    )
