"""One meter with its schedule: reads it when it is due, and says what is wrong with it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from collectors.base import Collector, Conditions, Failure, Readings
from collectors.errors import ReadFailed
from melodi.clock import NS_PER_SECOND, Clock
from melodi.energy.bins import Bin
from melodi.sampling.meters import EnergyCurve
from melodi.sampling.ticks import Ticks

CONDITIONS_PERIOD_NS = NS_PER_SECOND
ERRORS_BEFORE_FAULT = 5
SILENCE_NS = NS_PER_SECOND
SILENT_PERIODS = 5
SUSPENDED_NS = NS_PER_SECOND
SLOW_PART = 5
"""A pass that takes more than this part of its period is slow."""
SLOW_PASSES = 5
"""In a row, because a single one may have waited for the processor."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one beat of one collector read, how late it was, and what failed."""

    collector: str
    late_ns: int
    missed: int
    bins: tuple[Bin, ...]
    failures: tuple[Failure, ...]
    conditions: tuple[Conditions, ...] = ()


class Station:
    """Feeds the curves of one collector. One thread beats it; any may ask how it is."""

    def __init__(
        self,
        collector: Collector,
        *,
        period_ns: int,
        clock: Clock,
        on_sample: Callable[[Sample], None],
    ) -> None:
        self.collector = collector
        self.period_ns = period_ns
        self.curves = {domain.name: EnergyCurve(domain) for domain in collector.domains}
        self._clock = clock
        self._on_sample = on_sample
        now_ns = clock.monotonic_ns()
        self._ticks = Ticks(start_ns=now_ns, period_ns=period_ns)
        self._conditions_due_ns = now_ns
        self._asleep_ns = clock.boottime_ns() - now_ns
        self._failed_in_a_row = 0
        self._fault: str | None = None
        self._slow_in_a_row = 0
        self._is_slowed = False

    @property
    def name(self) -> str:
        return self.collector.name

    @property
    def deadline_ns(self) -> int:
        """When it is to be read next."""
        return self._ticks.deadline_ns

    @property
    def fault(self) -> str | None:
        """What is wrong with it at present; None: nothing."""
        silent_ns = self._silent_ns
        if silent_ns > max(SILENCE_NS, SILENT_PERIODS * self.period_ns):
            return f"{self.name} has not answered for {silent_ns // NS_PER_SECOND} s"
        return self._fault

    @property
    def is_up(self) -> bool:
        """Its last pass read every domain, and it still answers."""
        return self._failed_in_a_row == 0 and self.fault is None

    def run(self, stopping: threading.Event) -> None:
        """Beat until told to stop."""
        while True:
            wait_ns = self.deadline_ns - self._clock.monotonic_ns()
            if stopping.wait(max(0, wait_ns) / NS_PER_SECOND):
                return
            self.beat()

    def beat(self) -> None:
        """Read it, if it is due."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self.deadline_ns:
            return
        late_ns, missed = self._ticks.beat(now_ns)
        readings = self._read()
        read_ns = self._clock.monotonic_ns()
        self._notice_sleep(read_ns)
        bins = [self.curves[one.domain].feed(one) for one in readings.values]
        conditions: tuple[Conditions, ...] = ()
        if now_ns >= self._conditions_due_ns:
            self._conditions_due_ns = now_ns + CONDITIONS_PERIOD_NS
            conditions = self._conditions()
        self._pace(read_ns - now_ns)
        whole = tuple(one for one in bins if one is not None)
        self._on_sample(Sample(self.name, late_ns, missed, whole, readings.failures, conditions))

    @property
    def _silent_ns(self) -> int:
        return self._clock.monotonic_ns() - self.deadline_ns

    def _read(self) -> Readings:
        try:
            readings = self.collector.read()
        except Exception as error:  # noqa: BLE001  one bad read must never be the last
            failed = error if isinstance(error, ReadFailed) else ReadFailed(repr(error))
            readings = Readings((), tuple(Failure(name, failed) for name in self.curves))
        self._note(readings)
        return readings

    def _conditions(self) -> tuple[Conditions, ...]:
        try:
            return self.collector.conditions()
        except Exception as error:  # noqa: BLE001  what explains joules must not cost any
            log.warning("conditions_unread", collector=self.name, reason=repr(error))
            return ()

    def _note(self, readings: Readings) -> None:
        """A fault is what fails several times in a row; it is said once, and so is its end."""
        if not readings.failures:
            if self._fault is not None:
                log.info("meter_back", collector=self.name)
            self._failed_in_a_row, self._fault = 0, None
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row == ERRORS_BEFORE_FAULT:
            failure = readings.failures[0]
            self._fault = f"{self.name}: {failure.domain} cannot be read: {failure.error}"
            log.warning("meter_fails", collector=self.name, reason=self._fault)

    def _notice_sleep(self, read_ns: int) -> None:
        """Monotonic time stands still in suspend and boot time does not (MEASUREMENT, section 4).

        Asked after the read, so that a sleep in its midst is noticed with it.
        """
        # Boot time first: a pause between the two clocks makes a sleep shorter, never up.
        asleep_ns = self._clock.boottime_ns() - self._clock.monotonic_ns()
        if asleep_ns - self._asleep_ns > SUSPENDED_NS:
            seconds = (asleep_ns - self._asleep_ns) / NS_PER_SECOND
            log.warning("machine_slept", collector=self.name, seconds=round(seconds, 1))
            for curve in self.curves.values():
                curve.suspended(read_ns)
        self._asleep_ns = max(self._asleep_ns, asleep_ns)

    def _pace(self, took_ns: int) -> None:
        """Read a meter that takes its time half as often, once."""
        is_slow = took_ns * SLOW_PART > self.period_ns
        self._slow_in_a_row = self._slow_in_a_row + 1 if is_slow else 0
        if self._is_slowed or self._slow_in_a_row < SLOW_PASSES:
            return
        self._is_slowed = True
        self.period_ns *= 2
        self._ticks = Ticks(start_ns=self.deadline_ns, period_ns=self.period_ns)
        log.warning(
            "meter_is_slow",
            collector=self.name,
            read_seconds=took_ns / NS_PER_SECOND,
            period_seconds=self.period_ns / NS_PER_SECOND,
        )
