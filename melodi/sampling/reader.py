"""One meter with its schedule: reads it when it is due, in whatever thread or process it stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import structlog

from collectors.base import Collector, Conditions, Failure, Readings
from collectors.errors import ReadFailed
from collectors.overlap import opened
from melodi.clock import NS_PER_SECOND, Clock
from melodi.sampling.ticks import Ticks

CONDITIONS_PERIOD_NS = NS_PER_SECOND
SLOW_PART = 5
"""A pass that takes more than this part of its period is slow."""
SLOW_PASSES = 5
"""In a row, because a single one may have waited for the processor."""

BUNDLE_NS = 50_000_000
"""A pass waits at most so long for those after it: several at once are fed at half the price."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
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


Deliver = Callable[[Sequence[Pass]], None]
"""Takes some passes of one collector, in order of time."""


class Reader:
    """Reads one collector. One thread beats it."""

    def __init__(self, collector: Collector, *, period_ns: int, clock: Clock) -> None:
        self.collector = opened(collector)
        self.name = self.collector.name
        self.period_ns = period_ns
        self._now_ns, self._boot_ns = clock.monotonic_ns, clock.boottime_ns
        self._successor: Collector | None = None
        self._conditions_due_ns = clock.monotonic_ns()
        self._ticks = Ticks(start_ns=self._conditions_due_ns, period_ns=period_ns)
        self._slow_in_a_row = 0
        self._is_slowed = False

    @property
    def deadline_ns(self) -> int:
        """When it is to be read next."""
        return self._ticks.deadline_ns

    def run(self, stopped: Lock, deliver: Deliver) -> None:
        """Beat until `stopped` can be had.

        A lock and no Event, because waiting for one takes two thirds of the processor's time.
        """
        waiting: list[Pass] = []
        while not stopped.acquire(timeout=self._wait_seconds()):
            if (one := self.beat()) is None:
                continue
            waiting.append(one)
            if one.next_ns - waiting[0].read_ns > BUNDLE_NS:
                deliver(waiting)
                waiting = []
        deliver(waiting)

    def beat(self) -> Pass | None:
        """Read it; None where it is not due yet."""
        now_ns, ticks = self._now_ns(), self._ticks
        if now_ns < ticks.deadline_ns:
            return None
        late_ns, missed = ticks.beat(now_ns)
        if self._successor is not None:
            self._change_over()
        try:
            readings = self.collector.read()
        except Exception as error:  # noqa: BLE001  one bad read must never be the last
            readings = self._unread(error)
        # Asked after the read, so that a sleep in its midst is noticed with it; boot time first,
        # because a pause between the two clocks then makes a sleep shorter, never up.
        boot_ns = self._boot_ns()
        read_ns = self._now_ns()
        conditions: tuple[Conditions, ...] = ()
        if now_ns >= self._conditions_due_ns:
            self._conditions_due_ns = now_ns + CONDITIONS_PERIOD_NS
            conditions = self._conditions()
        if (read_ns - now_ns) * SLOW_PART <= self.period_ns:
            self._slow_in_a_row = 0
        else:
            self._slow_down_when_due(read_ns - now_ns)
        return Pass(
            collector=self.name,
            late_ns=late_ns,
            missed=missed,
            read_ns=read_ns,
            asleep_ns=boot_ns - read_ns,
            next_ns=self._ticks.deadline_ns,
            period_ns=self.period_ns,
            readings=readings,
            conditions=conditions,
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

    def _wait_seconds(self) -> float:
        return max(0, self._ticks.deadline_ns - self._now_ns()) / NS_PER_SECOND

    def _unread(self, error: Exception) -> Readings:
        """What a pass gives that failed as a whole."""
        failed = error if isinstance(error, ReadFailed) else ReadFailed(repr(error))
        return Readings((), tuple(Failure(one.name, failed) for one in self.collector.domains))

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
