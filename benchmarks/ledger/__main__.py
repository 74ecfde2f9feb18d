"""Thread CPU time that the ledger takes for each second of dense traffic, as shares of one core.

python -m benchmarks.ledger [SECONDS]
"""

import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from random import Random

from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.ledger import Ledger
from melodi.energy.policies import policies_for
from melodi.energy.tally import DomainFacts
from melodi.energy.work import Work

MS = 1_000_000
SECOND = 1_000 * MS
TURN_NS = 100 * MS
REFRESH_NS = 100 * MS
HALF_WIDTH_NS = 25 * MS
STEP_NS = 20 * MS
IDLE_WATTS, BUSY_WATTS = 110.0, 560.0
SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """So many requests a second, so many at once, each on all of the GPUs (one tensor group)."""

    gpus: int
    rate: float
    at_once: int
    streamed: float = 1.0


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
class _Run:
    """Requests begin and end, bins come, the ledger turns, all in virtual time."""

    traffic: Traffic
    random: Random = field(default_factory=lambda: Random(1))
    spent: Spent = field(default_factory=Spent)
    running: list[tuple[int, str, int]] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names = [f"gpu:{k}" for k in range(self.traffic.gpus)]
        self.phases = [self.random.randrange(REFRESH_NS) for _ in self.names]
        self.totals = [0] * len(self.names)
        facts = [
            DomainFacts(
                name=name,
                kind="gpu",
                scope="gpu",
                source="benchmark",
                origin="sensor",
                refresh_ns=REFRESH_NS,
                max_watts=700.0,
                exclusive=True,
            )
            for name in self.names
        ]
        idle = dict.fromkeys(self.names, IDLE_WATTS)
        self.ledger = Ledger(facts, policies=partial(policies_for, "auto"), idle_watts=idle)

    def go(self, seconds: int) -> Spent:
        now_ns, next_ns, number = SECOND, SECOND, 0
        stop_ns = now_ns + seconds * SECOND
        while now_ns < stop_ns:
            turn_ns = now_ns + TURN_NS
            while next_ns < turn_ns:
                self._finish(next_ns)
                self._begin(f"r{number}", next_ns)
                number += 1
                next_ns += round(SECOND / self.traffic.rate)
            self._finish(turn_ns)
            self._add_bins(turn_ns)
            self._turn(turn_ns)
            now_ns = turn_ns
        return self.spent

    def _begin(self, name: str, at_ns: int) -> None:
        mean_ns = self.traffic.at_once / self.traffic.rate * SECOND
        length_ns = round(mean_ns * self.random.uniform(0.5, 1.5))
        heappush(self.running, (at_ns + length_ns, name, at_ns))
        with self.spent.on_books():
            self.ledger.begin(name, self.names, at_ns)

    def _finish(self, until_ns: int) -> None:
        while self.running and self.running[0][0] <= until_ns:
            end_ns, name, start_ns = heappop(self.running)
            arrivals = array("q", range(start_ns + 2 * STEP_NS, end_ns + 1, STEP_NS))
            streamed = self.random.random() < self.traffic.streamed
            work = Work.of(
                input_tokens=self.random.randrange(20, 400),
                cached_tokens=0,
                output_tokens=max(1, len(arrivals)),
                arrivals_ns=arrivals if streamed else (),
            )
            first_ns = arrivals[0] if arrivals and streamed else None
            span = Span(name, Interval(start_ns, end_ns), first_ns, work=work)
            self.ended.add(name)
            with self.spent.on_books():
                self.ledger.end(name, span)

    def _add_bins(self, until_ns: int) -> None:
        for k, name in enumerate(self.names):
            end_ns = until_ns - self.phases[k]
            energy_uj = round(BUSY_WATTS * REFRESH_NS / 1_000 * self.random.uniform(0.9, 1.1))
            self.totals[k] += energy_uj
            bin_ = Bin(
                domain=name,
                start_ns=end_ns - REFRESH_NS,
                end_ns=end_ns,
                energy_uj=energy_uj,
                total_uj=self.totals[k],
                half_width_ns=HALF_WIDTH_NS,
            )
            self.spent.bins += 1
            with self.spent.on_books():
                self.ledger.add(bin_)

    def _turn(self, now_ns: int) -> None:
        with self.spent.on_books():
            closing = self.ledger.advance(now_ns, wall_offset_ns=0)
        began = time.thread_time_ns()
        for name in closing.touched & self.ended:
            self.ledger.posted(name)
        self.spent.posted_ns += time.thread_time_ns() - began
        self.ended -= closing.final.keys()
        self.spent.requests += len(closing.final)
        self.spent.measured += sum(one.measured_joules for one in closing.minutes)
        self.spent.residual += sum(one.residual_joules for one in closing.minutes)


CASES = {
    "8 GPUs, 100 requests/s, 64 at once": Traffic(gpus=8, rate=100, at_once=64),
    "the same, half streamed": Traffic(gpus=8, rate=100, at_once=64, streamed=0.5),
    "1 GPU, 100 requests/s, 64 at once": Traffic(gpus=1, rate=100, at_once=64),
    "1 GPU, 2 requests/s, 2 at once": Traffic(gpus=1, rate=2, at_once=2),
    "1 GPU, 1 request/s, 1 at once": Traffic(gpus=1, rate=1, at_once=1),
    "8 GPUs, next to nothing": Traffic(gpus=8, rate=0.1, at_once=0.01),
}


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    print("| traffic | of one core | with rows for what is not final | us a bin | residual |")
    print("|---|---|---|---|---|")
    for name, traffic in CASES.items():
        spent = _Run(traffic).go(seconds)
        books = spent.books_ns / (seconds * SECOND)
        whole = (spent.books_ns + spent.posted_ns) / (seconds * SECOND)
        each = spent.books_ns / spent.bins / 1_000
        residual = abs(spent.residual) / spent.measured
        print(f"| {name} | {books:.2%} | {whole:.2%} | {each:.0f} | {residual:.0e} |", flush=True)


if __name__ == "__main__":
    main()
