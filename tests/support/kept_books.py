"""A simulated device under load in virtual time, its books kept as a daemon keeps them."""

import random
from array import array
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from energy_records import START_NS, make_record

from collectors.base import Reading
from melodi.clock import NS_PER_MINUTE, NS_PER_SECOND, to_datetime
from melodi.daemon.keeping import Keeper
from melodi.energy.accounts import MinuteAccounts
from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.ledger import LATEST_NS, Closing, Ledger
from melodi.energy.policies import policies_for
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy, charged
from melodi.energy.work import Work
from melodi.ids import new_id
from melodi.inference.engine_meter import EngineCounters, EngineMeter
from melodi.sampling.meters import EnergyCurve
from melodi.simulator.core import Core
from melodi.simulator.jobs import EventKind, Submission
from melodi.simulator.sensor import PowerSensor
from melodi.simulator.settings import SimulatorSettings
from melodi.store.records import Batch, RecordStore

MS = 1_000_000
US = 1_000
POLL_NS = 50 * MS
TURN_NS = 500 * MS
MODEL = "simulated"
HOST = "here"
FIRST_MINUTE = START_NS // NS_PER_MINUTE
AT_ONCE = 20
"""Batches in one transaction."""


@dataclass
class Books:
    """One ledger and what it said."""

    ledger: Ledger
    final: dict[str, RequestEnergy] = field(default_factory=dict)
    minutes: list[MinuteAccounts] = field(default_factory=list)

    def advance(self, now_ns: int) -> Closing:
        closing = self.ledger.advance(now_ns, wall_offset_ns=START_NS)
        self.final |= closing.final
        self.minutes += closing.minutes
        return closing


class KeptBooks:
    """Clients that ask one after the other, as the books `kept` by one policy see them.

    `other` are the books as they would be by another policy, told the same. Every `late_every`th
    request is first heard of long after it has ended, by the books that are kept. Every `pause`
    requests nobody asks for some seconds. Where they are not `streamed` the engine's counters are
    read once a second.
    """

    def __init__(
        self,
        *,
        policy: str,
        other: str,
        clients: int = 4,
        requests: int = 120,
        pause: int = 40,
        late_every: int | None = None,
        seed: int = 1,
        streamed: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.streamed = streamed
        self.meter = EngineMeter("")
        self.batches: list[Batch] = []
        """What is to be stored, in order."""
        settings = SimulatorSettings(refresh_ns=100 * MS, seed=seed)
        self.core = Core(settings, loaded=(MODEL, settings.context_tokens))
        self.context = settings.context_tokens
        self.sensor = PowerSensor(self.core)
        self.curve = EnergyCurve(self.sensor.domain)
        self.domain = self.sensor.domain.name
        facts = DomainFacts(
            name=self.domain,
            kind="gpu",
            scope="gpu",
            source="simulated",
            origin="simulator",
            refresh_ns=100 * MS,
            max_watts=settings.max_watts,
            exclusive=True,
        )
        idle = {self.domain: settings.idle_watts}
        self.books, self.other = (
            Books(Ledger([facts], policies=partial(policies_for, name), idle_watts=idle))
            for name in (policy, other)
        )
        self.keeper = Keeper(lambda: self.books.ledger.facts)
        self.clients, self.left, self.pause = clients, requests, pause
        self.late_every = late_every
        self.number = 0
        self.begun: dict[int, tuple[str, int]] = {}
        self.arrivals: dict[int, array[int]] = {}
        self.late: list[tuple[str, int, Span]] = []
        self.tokens: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.told: set[str] = set()

    def run(self) -> None:
        """To the end of all requests, and a while longer."""
        now_ns = NS_PER_SECOND
        for _ in range(self.clients):
            self._submit(now_ns)
        next_poll_ns, next_turn_ns = 0, TURN_NS
        while self.left or self.begun:
            event_ns = self.core.next_event_ns()
            now_ns = min(next_poll_ns, next_poll_ns if event_ns is None else event_ns)
            self.core.advance(now_ns)
            self._take_events()
            if now_ns == next_poll_ns:
                self._poll(now_ns)
                if now_ns % NS_PER_SECOND == 0 and not self.streamed:
                    self._read_counters(now_ns)
                next_poll_ns += POLL_NS
            if now_ns >= next_turn_ns:
                self._turn(now_ns)
                next_turn_ns = now_ns + TURN_NS
        for _ in range(100):
            self.core.advance(next_poll_ns)
            self._poll(next_poll_ns)
            if next_poll_ns % NS_PER_SECOND == 0 and not self.streamed:
                self._read_counters(next_poll_ns)
            next_poll_ns += POLL_NS
        self._turn(next_poll_ns)
        for request, sent_ns, span in self.late:
            self.books.ledger.begin(request, [self.domain], sent_ns)
            self.books.ledger.end(request, span)
        self._turn(next_poll_ns + LATEST_NS, last=True)

    def _submit(self, at_ns: int) -> None:
        if not self.left:
            return
        self.left -= 1
        self.number += 1
        output = min(400, round(self.random.lognormvariate(4.6, 0.6)) + 4)
        submission = Submission(
            model=MODEL,
            context_tokens=self.context,
            prompt=tuple(
                self.random.randrange(32_000) for _ in range(self.random.randrange(1, 400))
            ),
            output_tokens=output,
            finish_reason="length",
        )
        key = self.core.submit(submission, at_ns)
        request = new_id(START_NS + at_ns)
        self.begun[key] = (request, at_ns)
        self.arrivals[key] = array("q")
        self.sent[request] = at_ns
        if not self.late_every or self.number % self.late_every:
            self.told.add(request)
            self.books.ledger.begin(request, [self.domain], at_ns)
        self.other.ledger.begin(request, [self.domain], at_ns)
        self.keeper.begin(request, [self.domain], at_ns)
        self.meter.begin(request, at_ns, streamed=self.streamed)

    def _take_events(self) -> None:
        for event in self.core.drain():
            _, sent_ns = self.begun[event.request]
            if event.kind is EventKind.TOKEN and self.streamed:
                seen_ns = sent_ns + (event.at_ns - sent_ns) // US * US
                self.arrivals[event.request].append(seen_ns)
            elif event.kind is EventKind.FINISHED:
                self._end(event.request, event.at_ns)
                is_pause = self.pause and self.number % self.pause < self.clients
                self._submit(event.at_ns + (12 * NS_PER_SECOND if is_pause else 0))

    def _end(self, key: int, at_ns: int) -> None:
        request, sent_ns = self.begun.pop(key)
        self.meter.end(request, at_ns)
        truth, seen_ns = self.core.truth(key), self.arrivals.pop(key)
        work = Work.of(
            input_tokens=truth.prompt_tokens,
            cached_tokens=truth.cached_tokens,
            output_tokens=truth.output_tokens,
            arrivals_ns=seen_ns,
        )
        span = Span(request, Interval(sent_ns, at_ns), seen_ns[0] if seen_ns else None, work=work)
        self.tokens[request] = truth.output_tokens
        if request in self.told:
            self.books.ledger.end(request, span)
        else:
            self.late.append((request, sent_ns, span))
        self.other.ledger.end(request, span)
        self.keeper.end(request, span)

    def _poll(self, at_ns: int) -> None:
        energy_uj, power_uw = self.sensor.read(at_ns)
        reading = Reading(self.domain, at_ns, 0, energy_uj=energy_uj, power_uw=power_uw)
        bin_: Bin | None = self.curve.feed(reading)
        if bin_ is not None:
            self.books.ledger.add(bin_)
            self.other.ledger.add(bin_)

    def _read_counters(self, at_ns: int) -> None:
        totals = self.core.totals()
        counters = EngineCounters(
            at_ns=at_ns,
            half_width_ns=MS,
            process=0.0,
            steps={"0": totals.steps},
            prefill_tokens=totals.prompt_tokens - totals.cached_tokens,
            output_tokens=totals.output_tokens,
        )
        for told in self.meter.feed(counters):
            self.books.ledger.step(told)
            self.other.ledger.step(told)
            self.keeper.step(told)

    def _turn(self, now_ns: int, *, last: bool = False) -> None:
        closing = self.books.advance(now_ns)
        self.other.advance(now_ns)
        self.keeper.close(closing.bins)
        records = []
        for request, energy in closing.final.items():
            plain = make_record(
                id=request,
                host=HOST,
                backend="sim",
                started_at=to_datetime(START_NS + self.sent[request]),
                output_tokens=self.tokens[request],
            )
            records.append(charged(plain, energy))
        minute = (now_ns + START_NS) // NS_PER_MINUTE
        kept = self.keeper.take(minute, everything=last)
        minutes = tuple(closing.minutes)
        self.batches.append(Batch(host=HOST, records=tuple(records), minutes=minutes, kept=kept))


@cache
def _run(**how: Any) -> KeptBooks:
    books = KeptBooks(**how)
    books.run()
    return books


def kept_books(store: RecordStore, **how: Any) -> KeptBooks:
    """Books that were kept to the end, and are in `store`; those of equal `how` are kept once."""
    books = _run(**how)
    for start in range(0, len(books.batches), AT_ONCE):
        store.apply(books.batches[start : start + AT_ONCE])
    return books
