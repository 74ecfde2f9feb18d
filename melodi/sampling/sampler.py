"""Reads every collector in one thread, each at its own period, and passes on what it saw."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from collectors.base import Collector, Conditions, Domain, Failure, Readings
from collectors.errors import ReadFailed
from melodi.clock import NS_PER_SECOND, Clock
from melodi.energy.bins import Bin
from melodi.sampling.meters import EnergyCurve
from melodi.sampling.ticks import Ticks

CONDITIONS_PERIOD_NS = NS_PER_SECOND
ERRORS_BEFORE_FAULT = 5

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


@dataclass(slots=True)
class _Station:
    """One collector with its schedule."""

    collector: Collector
    ticks: Ticks
    conditions_due_ns: int
    failed_in_a_row: int = 0
    fault: str | None = None


class Sampler:
    """Keeps one energy curve per domain; `on_sample` is called in the sampler's thread.

    `periods_ns` names the period of each collector. Tests call `beat` themselves and need no
    thread.
    """

    def __init__(
        self,
        collectors: list[Collector],
        *,
        periods_ns: Mapping[str, int],
        clock: Clock,
        on_sample: Callable[[Sample], None],
    ) -> None:
        self._clock = clock
        self._on_sample = on_sample
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        now_ns = clock.monotonic_ns()
        self._stations = [
            _Station(one, Ticks(start_ns=now_ns, period_ns=periods_ns[one.name]), now_ns)
            for one in collectors
        ]
        self.curves = {
            domain.name: EnergyCurve(domain) for one in collectors for domain in one.domains
        }

    @property
    def domains(self) -> tuple[Domain, ...]:
        return tuple(curve.domain for curve in self.curves.values())

    @property
    def faults(self) -> list[str]:
        """What does not work at present, in words; empty: all is well."""
        found = [one.fault for one in self._stations if one.fault is not None]
        if self._thread is not None and not self._thread.is_alive() and not self._stopping.is_set():
            found.append("the sampler has died: nothing is measured; restart melodi")
        return found

    def start(self) -> None:
        """Begin to beat in a thread of its own, if there is anything to read."""
        if not self._stations:
            return
        self._thread = threading.Thread(target=self._run, name="melodi-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, then close the collectors."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        for station in self._stations:
            station.collector.close()

    def beat(self) -> None:
        """Read every collector that is due now."""
        for station in self._stations:
            now_ns = self._clock.monotonic_ns()
            if now_ns >= station.ticks.deadline_ns:
                self._on_sample(self._sample(station, now_ns))

    @property
    def next_deadline_ns(self) -> int | None:
        """When the next collector is due; None: there is none."""
        return min((one.ticks.deadline_ns for one in self._stations), default=None)

    def _run(self) -> None:
        while (deadline_ns := self.next_deadline_ns) is not None:
            wait_ns = deadline_ns - self._clock.monotonic_ns()
            if self._stopping.wait(max(0, wait_ns) / NS_PER_SECOND):
                return
            self.beat()

    def _sample(self, station: _Station, now_ns: int) -> Sample:
        late_ns, missed = station.ticks.beat(now_ns)
        collector = station.collector
        readings = self._read(station)
        bins = [self.curves[one.domain].feed(one) for one in readings.values]
        conditions: tuple[Conditions, ...] = ()
        if now_ns >= station.conditions_due_ns:
            station.conditions_due_ns = now_ns + CONDITIONS_PERIOD_NS
            conditions = self._conditions(station)
        return Sample(
            collector.name,
            late_ns,
            missed,
            tuple(one for one in bins if one is not None),
            readings.failures,
            conditions,
        )

    def _read(self, station: _Station) -> Readings:
        collector = station.collector
        try:
            readings = collector.read()
        except Exception as error:  # noqa: BLE001  one meter must never stop the others
            failed = error if isinstance(error, ReadFailed) else ReadFailed(repr(error))
            readings = Readings((), tuple(Failure(one.name, failed) for one in collector.domains))
        self._note(station, readings)
        return readings

    def _conditions(self, station: _Station) -> tuple[Conditions, ...]:
        try:
            return station.collector.conditions()
        except Exception as error:  # noqa: BLE001  what explains joules must not cost any
            log.warning("conditions_unread", collector=station.collector.name, reason=repr(error))
            return ()

    def _note(self, station: _Station, readings: Readings) -> None:
        """A fault is what fails several times in a row; it is said once, and so is its end."""
        name = station.collector.name
        if not readings.failures:
            if station.fault is not None:
                log.info("meter_back", collector=name)
            station.failed_in_a_row, station.fault = 0, None
            return
        station.failed_in_a_row += 1
        if station.failed_in_a_row == ERRORS_BEFORE_FAULT:
            failure = readings.failures[0]
            station.fault = f"{name}: {failure.domain} cannot be read: {failure.error}"
            log.warning("meter_fails", collector=name, reason=station.fault)
