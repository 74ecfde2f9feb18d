"""Traffic in virtual time on a ledger: requests begin and end, bins come, the books are turned."""

import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from random import Random

from melodi.daemon.bookkeeper import CLOSE_EVERY_NS
from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.ledger import Ledger
from melodi.energy.policies import policies_for
from melodi.energy.tally import DomainFacts
from melodi.energy.usage import Usage
from melodi.energy.work import Work

MS = 1_000_000
SECOND = 1_000 * MS
TURN_NS = CLOSE_EVERY_NS
STEP_NS = 20 * MS
IDLE_WATTS, BUSY_WATTS = 110.0, 560.0
BACKEND = "engine"


@dataclass(frozen=True, kw_only=True)
class Meters:
    """Domains that are read alike."""

    kind: str
    refresh_ns: int
    bin_ns: int
    """Between two changes that were seen."""
    half_width_ns: int
    usage_ns: int | None = None
    """How often the backend's part of a domain is told; None: it works for nobody else."""


GPUS = Meters(kind="gpu", refresh_ns=100 * MS, bin_ns=100 * MS, half_width_ns=25 * MS)
CPUS = Meters(
    kind="cpu", refresh_ns=MS, bin_ns=50 * MS, half_width_ns=MS // 2, usage_ns=SECOND // 2
)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """So many requests a second, so many at once, each on all of the domains."""

    domains: int
    rate: float
    at_once: float
    streamed: float = 1.0
    meters: Meters = GPUS


@dataclass
class Spent:
    """CPU time inside the ledger, in ns, by what it was for."""

    books_ns: int = 0
    posted_ns: int = 0
    requests: int = 0
    bins: int = 0
    residual: float = 0.0
    measured: float = 0.0

    @contextmanager
    def on_books(self) -> Iterator[None]:
        began = time.thread_time_ns()
        yield
        self.books_ns += time.thread_time_ns() - began


@dataclass
class Run:
    """Everything that a turn of the ledger is told is gathered first, so that telling is timed."""

    traffic: Traffic
    random: Random = field(default_factory=lambda: Random(1))
    spent: Spent = field(default_factory=Spent)
    running: list[tuple[int, str, int]] = field(default_factory=list)
    told: list[Callable[[], None]] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        meters = self.traffic.meters
        self.names = [f"{meters.kind}:{k}" for k in range(self.traffic.domains)]
        self.next_ns = {
            name: SECOND + self.random.randrange(meters.bin_ns, 2 * meters.bin_ns)
            for name in self.names
        }
        self.used_ns = SECOND
        self.totals = dict.fromkeys(self.names, 0)
        facts = [
            DomainFacts(
                name=name,
                kind=meters.kind,
                scope=meters.kind,
                source="benchmark",
                origin="sensor",
                refresh_ns=meters.refresh_ns,
                max_watts=700.0,
                exclusive=meters.usage_ns is None,
            )
            for name in self.names
        ]
        idle = dict.fromkeys(self.names, IDLE_WATTS)
        self.ledger = Ledger(facts, policies=partial(policies_for, "auto"), idle_watts=idle)

    def go(self, seconds: float) -> Spent:
        now_ns, next_ns, number = SECOND, SECOND, 0
        stop_ns = now_ns + round(seconds * SECOND)
        while now_ns < stop_ns:
            now_ns += TURN_NS
            while next_ns < now_ns:
                self._finish(next_ns)
                self._begin(f"r{number}", next_ns)
                number += 1
                next_ns += round(SECOND / self.traffic.rate)
            self._finish(now_ns)
            self._add_bins(now_ns)
            self._turn(now_ns)
        return self.spent

    def _begin(self, name: str, at_ns: int) -> None:
        mean_ns = self.traffic.at_once / self.traffic.rate * SECOND
        length_ns = round(mean_ns * self.random.uniform(0.5, 1.5))
        heappush(self.running, (at_ns + length_ns, name, at_ns))
        self.told.append(partial(self.ledger.begin, name, self.names, at_ns))

    def _finish(self, until_ns: int) -> None:
        while self.running and self.running[0][0] <= until_ns:
            end_ns, name, start_ns = heappop(self.running)
            step_ns = min(STEP_NS, (end_ns - start_ns) // 4)
            arrivals = array("q", range(start_ns + 2 * step_ns, end_ns + 1, step_ns))
            streamed = self.random.random() < self.traffic.streamed
            work = Work.of(
                input_tokens=self.random.randrange(20, 400),
                cached_tokens=0,
                output_tokens=max(1, len(arrivals)),
                arrivals_ns=arrivals if streamed else (),
            )
            span = Span(
                name,
                Interval(start_ns, end_ns),
                arrivals[0] if arrivals and streamed else None,
                work=work,
                backend=BACKEND,
            )
            self.ended.add(name)
            self.told.append(partial(self.ledger.end, name, span))

    def _add_bins(self, until_ns: int) -> None:
        meters = self.traffic.meters
        for name in self.names:
            while (end_ns := self.next_ns[name]) <= until_ns:
                watts = BUSY_WATTS * self.random.uniform(0.9, 1.1)
                energy_uj = round(watts * meters.bin_ns / 1_000)
                self.totals[name] += energy_uj
                bin_ = Bin(
                    domain=name,
                    start_ns=end_ns - meters.bin_ns,
                    end_ns=end_ns,
                    energy_uj=energy_uj,
                    total_uj=self.totals[name],
                    half_width_ns=meters.half_width_ns,
                )
                self.next_ns[name] += meters.bin_ns
                self.spent.bins += 1
                self.told.append(partial(self.ledger.add, bin_))
        if meters.usage_ns is not None and until_ns - self.used_ns >= meters.usage_ns:
            for name in self.names:
                usage = Usage(
                    domain=name, start_ns=self.used_ns, end_ns=until_ns, shares={BACKEND: 0.9}
                )
                self.told.append(partial(self.ledger.use, usage))
            self.used_ns = until_ns

    def _turn(self, now_ns: int) -> None:
        with self.spent.on_books():
            for tell in self.told:
                tell()
            closing = self.ledger.advance(now_ns, wall_offset_ns=0)
        self.told.clear()
        began = time.thread_time_ns()
        self.ledger.posted(closing.touched & self.ended)
        self.spent.posted_ns += time.thread_time_ns() - began
        self.ended -= closing.final.keys()
        self.spent.requests += len(closing.final)
        self.spent.measured += sum(one.measured_joules for one in closing.minutes)
        self.spent.residual += sum(one.residual_joules for one in closing.minutes)
