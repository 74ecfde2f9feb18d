"""One meter with its schedule: reads it when it is due, in whatever thread or process it stands."""

from collections.abc import Callable
from threading import Event
from time import sleep

import structlog

from collectors.base import Collector, Conditions, Failure, Readings
from collectors.errors import ReadFailed
from collectors.overlap import opened
from collectors.values import value
from melodi.clock import NS_PER_SECOND, Clock
from melodi.sampling.ticks import Ticks

CONDITIONS_PERIOD_NS = NS_PER_SECOND
LONGEST_SLEEP_NS = NS_PER_SECOND // 5
"""A stop waits so long at most for who sleeps."""
SLOW_PART = 5
"""A pass that takes more than this part of its period is slow."""
SLOW_PASSES = 5
"""In a row, because a single one may have waited for the processor."""

log = structlog.get_logger(__name__)


@value()
class Pass:
    """What one read of a collector gave; times are monotonic, and the same in every process."""

    collector: str
    late_ns: int
    missed: int
    read_ns: int
    """When the read was over."""
    asleep_ns: int
    """How long the machine had been suspended by then, since boot."""
    next_ns: int
    """When it is to be read next."""
    period_ns: int
    readings: Readings
    conditions: tuple[Conditions, ...] = ()


class Reader:
    """Reads one collector. One thread beats it."""

    def __init__(self, collector: Collector, *, period_ns: int, clock: Clock) -> None:
        self.collector = opened(collector)
        self.name = self.collector.name
        self.period_ns = period_ns
        self._clock = clock
        self._successor: Collector | None = None
        self._conditions_due_ns = clock.monotonic_ns()
        self._ticks = Ticks(start_ns=self._conditions_due_ns, period_ns=period_ns)
        self._slow_in_a_row = 0
        self._is_slowed = False

    @property
    def deadline_ns(self) -> int:
        """When it is to be read next."""
        return self._ticks.deadline_ns

    def run(self, stopped: Event, deliver: Callable[[Pass], None]) -> None:
        """Beat until `stopped`: a long wait ends at once then, a short one by itself.

        A short one is a sleep, because waiting for an event takes the processor half as long again.
        """
        while not stopped.is_set():
            wait_ns = self._ticks.deadline_ns - self._clock.monotonic_ns()
            if wait_ns > LONGEST_SLEEP_NS:
                stopped.wait(wait_ns / NS_PER_SECOND)
            elif wait_ns > 0:
                sleep(wait_ns / NS_PER_SECOND)
            if (one := self.beat()) is not None:
                deliver(one)

    def beat(self) -> Pass | None:
        """Read it; None where it is not due yet."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._ticks.deadline_ns:
            return None
        late_ns, missed = self._ticks.beat(now_ns)
        if self._successor is not None:
            self._change_over()
        readings = self._read()
        # Asked after the read, so that a sleep in its midst is noticed with it; boot time first,
        # because a pause between the two clocks then makes a sleep shorter, never up.
        boot_ns = self._clock.boottime_ns()
        read_ns = self._clock.monotonic_ns()
        conditions: tuple[Conditions, ...] = ()
        if now_ns >= self._conditions_due_ns:
            self._conditions_due_ns = now_ns + CONDITIONS_PERIOD_NS
            conditions = self._conditions()
        if (read_ns - now_ns) * SLOW_PART <= self.period_ns:
            self._slow_in_a_row = 0
        else:
            self._slow_down_when_due(read_ns - now_ns)
        # In the order of its fields: a class that is given names makes a dictionary of them.
        return Pass(
            self.name,
            late_ns,
            missed,
            read_ns,
            boot_ns - read_ns,
            self._ticks.deadline_ns,
            self.period_ns,
            readings,
            conditions,
        )

    def succeed(self, collector: Collector) -> None:
        """Read this one from the next beat on; the one before is closed then, by who reads it."""
        if opened(collector) is not self.collector:
            self._successor = opened(collector)

    def close(self) -> None:
        """Close what it reads; nobody may be reading it."""
        self._change_over()
        self.collector.close()

    def _change_over(self) -> None:
        old, new, self._successor = self.collector, self._successor, None
        # It may have been named anew just as it took its place.
        if new is not None and new is not old:
            self.collector = new
            old.close()

    def _read(self) -> Readings:
        try:
            return self.collector.read()
        except Exception as error:  # noqa: BLE001  one bad read must never be the last
            failed = error if isinstance(error, ReadFailed) else ReadFailed(repr(error))
            names = [domain.name for domain in self.collector.domains]
            return Readings((), tuple(Failure(name, failed) for name in names))

    def _conditions(self) -> tuple[Conditions, ...]:
        try:
            return self.collector.conditions()
        except Exception as error:  # noqa: BLE001  what explains joules must not cost any
            log.warning("conditions_unread", collector=self.name, reason=repr(error))
            return ()

    def _slow_down_when_due(self, took_ns: int) -> None:
        """Read a meter that takes its time half as often, once."""
        self._slow_in_a_row += 1
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
