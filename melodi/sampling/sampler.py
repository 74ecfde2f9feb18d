"""Reads every collector in a thread of its own, so that one which hangs holds up no other."""

import threading
from collections.abc import Callable, Mapping

import structlog

from collectors.base import Collector, Domain
from melodi.clock import NS_PER_SECOND, Clock
from melodi.sampling.station import Sample, Station

STOP_SECONDS = 5

log = structlog.get_logger(__name__)


class Sampler:
    """Keeps one energy curve per domain; `on_sample` is called in the collectors' threads.

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
        self._stopping = threading.Event()
        self.stations = tuple(
            Station(one, period_ns=periods_ns[one.name], clock=clock, on_sample=on_sample)
            for one in collectors
        )
        self._threads: list[tuple[Station, threading.Thread]] = []
        self.curves = {name: curve for one in self.stations for name, curve in one.curves.items()}

    @property
    def domains(self) -> tuple[Domain, ...]:
        return tuple(curve.domain for curve in self.curves.values())

    @property
    def faults(self) -> list[str]:
        """What does not work at present, in words; empty: all is well."""
        if self._stopping.is_set():
            return []
        found = [one.fault for one in self.stations]
        found += [
            f"the sampler of {station.name} has died: it is not measured; restart melodi"
            for station, thread in self._threads
            if not thread.is_alive()
        ]
        return [one for one in found if one is not None]

    def start(self) -> None:
        """Begin to beat, each collector in a thread of its own."""
        for one in self.stations:
            thread = threading.Thread(
                target=one.run, args=[self._stopping], name=f"melodi-{one.name}", daemon=True
            )
            self._threads.append((one, thread))
            thread.start()

    def stop(self) -> None:
        """End the threads, then close the collectors; one that hangs is left behind, open."""
        self._stopping.set()
        deadline_ns = self._clock.monotonic_ns() + STOP_SECONDS * NS_PER_SECOND
        for _, thread in self._threads:
            left_ns = deadline_ns - self._clock.monotonic_ns()
            thread.join(timeout=max(0, left_ns) / NS_PER_SECOND)
        hanging = {station.name for station, thread in self._threads if thread.is_alive()}
        for station in self.stations:
            if station.name in hanging:
                log.warning("meter_left_open", collector=station.name, reason="it hangs")
            else:
                station.collector.close()

    def beat(self) -> None:
        """Read every collector that is due now."""
        for one in self.stations:
            one.beat()

    @property
    def next_deadline_ns(self) -> int | None:
        """When the next collector is due; None: there is none."""
        return min((one.deadline_ns for one in self.stations), default=None)
