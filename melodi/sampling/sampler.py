"""Keeps one energy curve per domain, read in threads of this process."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from collectors.base import Domain
from collectors.registry import Probe
from melodi.clock import Clock
from melodi.sampling.meters import EnergyCurve
from melodi.sampling.reader import Pass
from melodi.sampling.readers import PeriodOf, Readers
from melodi.sampling.station import Sample, Station

OnSample = Callable[[Sample], None]


class Stations:
    """The stations by collector, and all their curves; changed by one thread, read by many."""

    def __init__(self, *, period_of: PeriodOf, clock: Clock, on_sample: OnSample) -> None:
        self._period_of = period_of
        self._clock = clock
        self._on_sample = on_sample
        self._stations: dict[str, Station] = {}
        self._left: dict[str, EnergyCurve] = {}
        """Of domains that nobody measures any more: they go on from there if somebody does."""
        self.curves: dict[str, EnergyCurve] = {}

    def __iter__(self) -> Iterator[Station]:
        return iter(list(self._stations.values()))

    @property
    def domains(self) -> tuple[Domain, ...]:
        return tuple(curve.domain for curve in list(self.curves.values()))

    @property
    def faults(self) -> list[str]:
        return [one.fault for one in self if one.fault is not None]

    def follow(self, probes: Sequence[Probe]) -> None:
        """Have a station for each meter that can be read, and one for none but those."""
        wanted = {one.name: one.domains for one in probes if one.domains}
        gone = [self._stations.pop(name) for name in self._stations.keys() - wanted.keys()]
        for one in gone:
            one.feed()
            self._left |= one.curves
        for name, domains in wanted.items():
            if name not in self._stations:
                self._stations[name] = Station(
                    name,
                    period_ns=self._period_of(name),
                    clock=self._clock,
                    on_sample=self._on_sample,
                )
            self._stations[name].measure(domains, self._left)
            self.curves.update(self._stations[name].curves)
        for name in self.curves.keys() - {one.name for found in wanted.values() for one in found}:
            del self.curves[name]

    def take(self, one: Pass) -> None:
        """Give the pass to its station; one of a collector that is not known is let go."""
        station = self._stations.get(one.collector)
        if station is not None:
            station.take(one)

    def feed(self) -> None:
        """Feed the curves all that has been read."""
        for one in self:
            one.feed()


class Sampling(ABC):
    """Who keeps the curves, wherever the meters are read."""

    def __init__(self, stations: Stations) -> None:
        self._stations = stations
        self.curves: Mapping[str, EnergyCurve] = stations.curves
        """By domain: one mapping for good, which grows as meters come."""

    @property
    def stations(self) -> tuple[Station, ...]:
        return tuple(self._stations)

    @property
    def domains(self) -> tuple[Domain, ...]:
        return self._stations.domains

    @property
    @abstractmethod
    def faults(self) -> list[str]:
        """What does not work at present, in words; empty: all is well."""

    def feed(self) -> None:
        """Bring all curves up to date, and tell what came of it; any thread may."""
        self._stations.feed()

    @property
    def cpu_seconds(self) -> float:
        """CPU time of other processes that read for it."""
        return 0.0

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def follow(self, probes: Sequence[Probe]) -> None:
        """Measure with these meters from now on; where a domain changes its meter, so it says."""

    @abstractmethod
    def stop(self) -> None: ...


class Sampler(Sampling):
    """Reads the collectors of `probes`; `on_sample` is called in the thread that feeds the curves.

    Tests call `beat` themselves and need no thread.
    """

    def __init__(
        self, probes: Sequence[Probe], *, period_of: PeriodOf, clock: Clock, on_sample: OnSample
    ) -> None:
        super().__init__(Stations(period_of=period_of, clock=clock, on_sample=on_sample))
        self._readers = Readers(period_of=period_of, clock=clock, deliver=self._stations.take)
        self._is_stopped = False
        self.follow(probes)

    @property
    def faults(self) -> list[str]:
        if self._is_stopped:
            return []
        return self._stations.faults + [
            f"the sampler of {name} has died: it is not measured; restart melodi"
            for name in self._readers.dead
        ]

    def start(self) -> None:
        """Begin to beat, each collector in a thread of its own."""
        self._readers.start()

    def follow(self, probes: Sequence[Probe]) -> None:
        self._readers.let_go(probes)
        self._stations.follow(probes)
        self._readers.take_up(probes)

    def stop(self) -> None:
        """End the threads, then close the collectors; one that hangs is left behind, open."""
        self._is_stopped = True
        self._readers.stop()

    def beat(self) -> None:
        """Read every collector that is due now."""
        self._readers.beat()

    @property
    def next_deadline_ns(self) -> int | None:
        """When the next collector is due; None: there is none."""
        return self._readers.next_deadline_ns
