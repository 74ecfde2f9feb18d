"""A guess at CPU energy from how busy the processors are, for hosts where nothing measures it."""

import os
from collections.abc import Callable

from collectors.base import Conditions, Domain, Kind, Measure, NowNs, Reading, Readings

BusySeconds = Callable[[], float]
"""CPU time spent on anything but idling since boot, summed over all logical processors."""

# Published thermal design powers run from about 2 W a hardware thread (large servers) to 8 W.
_WATTS_PER_PROCESSOR = 4.0
_IDLE_RATIO = 0.2


class EstimateCollector:
    """All CPUs of this host as one counter, from a line between idle and full power.

    energy(t) = idle_watts x t + (max_watts - idle_watts) x busy seconds / processors

    This measures nothing. Real power also depends on clock, voltage, instruction mix and memory,
    and both ends of the line are guesses unless given: expect errors of a factor of two. It says
    when the CPUs were busy, and is marked `estimated` so that no sum takes it for a sensor's.
    """

    def __init__(
        self,
        *,
        now_ns: NowNs,
        max_watts: float | None = None,
        idle_watts: float | None = None,
        busy_seconds: BusySeconds | None = None,
        processors: int | None = None,
    ) -> None:
        processors = processors or os.cpu_count() or 1
        max_watts = _WATTS_PER_PROCESSOR * processors if max_watts is None else max_watts
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
        self._domain = Domain(
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

    @property
    def name(self) -> str:
        return "estimate"

    @property
    def domains(self) -> tuple[Domain, ...]:
        return (self._domain,)

    def read(self) -> Readings:
        at_ns = self._now_ns()
        idle_uj = self._idle_watts * (at_ns - self._start_ns) / 1_000
        busy_seconds = self._busy_seconds() - self._start_busy_seconds
        energy_uj = round(idle_uj + self._watts_per_busy_processor * busy_seconds * 1e6)
        # A processor that is taken offline takes its busy time with it; energy does not fall.
        self._last_uj = max(self._last_uj, energy_uj)
        return Readings((Reading(self._domain.name, at_ns, 0, self._last_uj),))

    def conditions(self) -> tuple[Conditions, ...]:
        return ()

    def close(self) -> None:
        """Nothing is held open."""


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
