"""What becomes of one meter's readings: its energy curves, and what is wrong with it."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog

from collectors.base import Conditions, Domain, Failure
from collectors.values import value
from melodi.clock import NS_PER_SECOND, Clock
from melodi.energy.bins import Bin
from melodi.sampling.meters import EnergyCurve
from melodi.sampling.reader import Pass

ERRORS_BEFORE_FAULT = 5
SILENCE_NS = NS_PER_SECOND
SILENT_PERIODS = 5
SUSPENDED_NS = NS_PER_SECOND
UNFED_NS = NS_PER_SECOND * 4 // 5
"""When who reads a meter feeds its curves, too: the books do it twice a second, if they live."""
MOST_WAITING = 10_000
"""Passes; beyond them the oldest is let go, which costs edges and, of a counter, no joule."""

log = structlog.get_logger(__name__)


@value()
class Sample:
    """What one beat of one collector read, how late it was, and what failed."""

    collector: str
    late_ns: int
    missed: int
    bins: tuple[Bin, ...]
    failures: tuple[Failure, ...]
    conditions: tuple[Conditions, ...] = ()


class Station:
    """The curves of one collector, and the passes that they have not been fed yet.

    Who reads the meter gives it passes, which costs next to nothing. Any thread may feed the
    curves, and does it by asking one: many passes at once take far less time than each on its
    own, because code and data are fetched into the processor's caches once for all of them.
    """

    def __init__(
        self,
        name: str,
        *,
        period_ns: int,
        clock: Clock,
        on_sample: Callable[[Sample], None],
    ) -> None:
        self.name = name
        self.period_ns = period_ns
        self.curves: dict[str, EnergyCurve] = {}
        self._clock = clock
        self._on_sample = on_sample
        self._waiting: deque[Pass] = deque(maxlen=MOST_WAITING)
        # One that may be had anew, because who is told of a sample may ask a curve.
        self._feeding = threading.RLock()
        self._due_ns = self._fed_ns = clock.monotonic_ns()
        self._asleep_ns = clock.boottime_ns() - self._due_ns
        self._failed_in_a_row = 0
        self._first_failure: Failure | None = None
        """Of those in a row: it tells the cause, and later ones only that it has not ended."""
        self._fault: str | None = None
        self._unused: str | None = None

    @property
    def fault(self) -> str | None:
        """What is wrong with it at present; None: nothing."""
        silent_ns = self._clock.monotonic_ns() - self._due_ns
        if silent_ns > max(SILENCE_NS, SILENT_PERIODS * self.period_ns):
            return f"{self.name} has not answered for {silent_ns // NS_PER_SECOND} s"
        return self._fault or self._unused

    @property
    def is_up(self) -> bool:
        """Its last pass read every domain, and it still answers."""
        return self._failed_in_a_row == 0 and self.fault is None

    def measure(self, domains: Iterable[Domain], taken_over: dict[str, EnergyCurve]) -> None:
        """Have a curve for each of these; those in `taken_over` leave it."""
        with self._feeding:
            for domain in domains:
                curve = self.curves.get(domain.name)
                if curve is None and (curve := taken_over.pop(domain.name, None)) is not None:
                    curve.take_over(domain, self._clock.monotonic_ns())
                curve = curve or EnergyCurve(domain)
                curve.domain, curve.renew = domain, self.feed
                self.curves[domain.name] = curve

    def take(self, one: Pass) -> None:
        """Have a pass wait to be fed, in order of time; the one who reads never waits here."""
        self._waiting.append(one)
        self._due_ns, self.period_ns = one.next_ns, one.period_ns
        failures = one.readings.failures
        if failures:
            self._note(failures)
        elif self._failed_in_a_row:
            self._note_end()
        if one.read_ns - self._fed_ns >= UNFED_NS and self._feeding.acquire(blocking=False):
            try:
                self.feed()
            finally:
                self._feeding.release()

    def feed(self) -> None:
        """Feed all that waits to the curves, and tell what came of it; any thread may.

        A pass that cannot be used is a fault, and ends neither the thread nor the measuring.
        """
        with self._feeding:
            while self._waiting:
                one = self._waiting.popleft()
                self._fed_ns = one.read_ns
                try:
                    self._on_sample(self._sample(one))
                    self._unused = None
                except Exception as error:
                    if self._unused is None:
                        log.exception("readings_unused", collector=self.name)
                    self._unused = f"{self.name}: what it read is of no use: {error!r}; see the log"

    def _sample(self, one: Pass) -> Sample:
        if one.asleep_ns > self._asleep_ns:
            self._notice_sleep(one)
        bins, curves = [], self.curves
        for reading in one.readings.values:
            curve = curves.get(reading.domain)
            if curve is not None and (bin_ := curve.feed(reading)) is not None:
                bins.append(bin_)
        return Sample(
            self.name, one.late_ns, one.missed, tuple(bins), one.readings.failures, one.conditions
        )

    def _note_end(self) -> None:
        if self._fault is not None:
            log.info("meter_back", collector=self.name)
        self._failed_in_a_row, self._fault = 0, None

    def _note(self, failures: Sequence[Failure]) -> None:
        """A fault is what fails several times in a row; it is said once, and so is its end."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row == 1:
            self._first_failure = failures[0]
        if self._failed_in_a_row == ERRORS_BEFORE_FAULT and self._first_failure is not None:
            failure = self._first_failure
            self._fault = f"{self.name}: {failure.domain} cannot be read: {failure.error}"
            log.warning("meter_fails", collector=self.name, reason=self._fault)

    def _notice_sleep(self, one: Pass) -> None:
        """Monotonic time stands still in suspend and boot time does not (MEASUREMENT: 4)."""
        if one.asleep_ns - self._asleep_ns > SUSPENDED_NS:
            seconds = (one.asleep_ns - self._asleep_ns) / NS_PER_SECOND
            log.warning("machine_slept", collector=self.name, seconds=round(seconds, 1))
            for curve in list(self.curves.values()):
                curve.suspended(one.read_ns)
        self._asleep_ns = one.asleep_ns
