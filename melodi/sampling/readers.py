"""Reads every collector in a thread of its own, so that one which hangs holds up no other."""

import threading
from collections.abc import Callable, Sequence

import structlog

from collectors.registry import Probe
from melodi.clock import NS_PER_SECOND, Clock
from melodi.sampling.reader import Pass, Reader

STOP_SECONDS = 5

log = structlog.get_logger(__name__)

PeriodOf = Callable[[str], int]
"""How often the collector of a name is read, in ns."""


class _Run:
    """A reader in its thread."""

    def __init__(self, reader: Reader, deliver: Callable[[Pass], None]) -> None:
        self.reader = reader
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=reader.run,
            args=[self._stopped, deliver],
            name=f"melodi-{reader.name}",
            daemon=True,
        )

    @property
    def has_died(self) -> bool:
        """It ended and nobody asked it to."""
        started = self._thread.ident is not None
        return started and not self._thread.is_alive() and not self._stopped.is_set()

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stopped.set()

    def close(self, seconds: float) -> None:
        """Close what it reads, once it has ended; what hangs is left behind, open."""
        if self._thread.ident is not None:
            self._thread.join(timeout=seconds)
        if self._thread.is_alive():
            log.warning("meter_left_open", collector=self.reader.name, reason="it hangs")
        else:
            self.reader.close()


class Readers:
    """The readers of a process; `deliver` takes the passes of each in that reader's thread."""

    def __init__(
        self, *, period_of: PeriodOf, clock: Clock, deliver: Callable[[Pass], None]
    ) -> None:
        self._period_of = period_of
        self._clock = clock
        self._deliver = deliver
        self._runs: dict[str, _Run] = {}
        self._started = False

    @property
    def dead(self) -> list[str]:
        """The collectors whose threads have ended by themselves."""
        return [name for name, one in list(self._runs.items()) if one.has_died]

    def let_go(self, probes: Sequence[Probe]) -> None:
        """End with those collectors that are not among these, and close them."""
        for name in self._runs.keys() - {one.name for one in probes if one.collector is not None}:
            run = self._runs.pop(name)
            run.ask_to_stop()
            run.close(STOP_SECONDS)

    def take_up(self, probes: Sequence[Probe]) -> None:
        """Read these collectors from now on, in place of those of their names."""
        for name, collector in ((one.name, one.collector) for one in probes):
            if collector is None:
                continue
            if name in self._runs:
                self._runs[name].reader.succeed(collector)
                continue
            reader = Reader(collector, period_ns=self._period_of(name), clock=self._clock)
            self._runs[name] = run = _Run(reader, self._deliver)
            if self._started:
                run.start()

    def start(self) -> None:
        """Begin to beat."""
        self._started = True
        for one in self._runs.values():
            one.start()

    def stop(self) -> None:
        """End the threads, then close the collectors."""
        deadline_ns = self._clock.monotonic_ns() + STOP_SECONDS * NS_PER_SECOND
        for one in self._runs.values():
            one.ask_to_stop()
        for one in self._runs.values():
            left_ns = deadline_ns - self._clock.monotonic_ns()
            one.close(max(0, left_ns) / NS_PER_SECOND)

    def beat(self) -> None:
        """Read every collector that is due now, in this thread."""
        for one in self._runs.values():
            if (read := one.reader.beat()) is not None:
                self._deliver(read)

    @property
    def next_deadline_ns(self) -> int | None:
        """When the next collector is due; None: there is none."""
        return min((one.reader.deadline_ns for one in self._runs.values()), default=None)
