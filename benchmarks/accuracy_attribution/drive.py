"""Drives the simulator in virtual time under a meter and a ledger, and keeps the truth."""

import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count

from benchmarks.accuracy_attribution.device import Device
from benchmarks.accuracy_attribution.scenario import MS, Scenario
from benchmarks.accuracy_attribution.way import Way
from collectors.base import Reading
from melodi.clock import NS_PER_SECOND
from melodi.daemon.service import service_of
from melodi.energy.bins import Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, SILENCE_NS, Ledger
from melodi.energy.policies import Policy
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy
from melodi.energy.usage import Usage
from melodi.energy.work import Work
from melodi.inference.engine_meter import EngineMeter
from melodi.inference.timeline import RequestTimeline
from melodi.sampling.meters import EnergyCurve
from melodi.simulator.jobs import Event, EventKind, Submission, Truth

TURN_NS = 500 * MS
USAGE_NS = STEPS_NS = NS_PER_SECOND
NEVER_NS = 1 << 62
MODEL, OTHER = "simulated", "other"


@dataclass
class Seen:
    """One request as the daemon sees it."""

    submission: Submission
    sent_ns: int
    streamed: bool
    arrivals: "array[int]" = field(default_factory=lambda: array("q"))
    end_ns: int | None = None


@dataclass
class Outcome:
    """What was measured and what is true."""

    energies: dict[int, RequestEnergy]
    truths: dict[int, Truth]
    seen: dict[int, Seen]
    curve: EnergyCurve
    measured_joules: float
    residual_joules: float


def drive(scenario: Scenario, policies: Callable[[], Sequence[Policy]]) -> Outcome:
    """Run the scenario to its end; every request is final then."""
    return _Run(scenario, policies).outcome()


class _Run:
    def __init__(self, scenario: Scenario, policies: Callable[[], Sequence[Policy]]) -> None:
        self.scenario = scenario
        self.random = random.Random(scenario.seed)
        self.reader = random.Random(scenario.seed)
        self.device = Device(scenario, self.random)
        domain = self.device.domain
        self.curve = EnergyCurve(domain)
        facts = DomainFacts(
            name=domain.name,
            kind="gpu",
            scope="gpu",
            source="simulated",
            origin="simulator",
            refresh_ns=scenario.refresh_ms * MS,
            max_watts=domain.max_power_watts,
            exclusive=scenario.foreign_watts == 0,
        )
        self.domain = domain.name
        idle = {domain.name: self.device.settings.idle_watts}
        self.ledger = Ledger([facts], policies=policies, idle_watts=idle)
        self.seen: dict[int, Seen] = {}
        self.energies: dict[int, RequestEnergy] = {}
        self.measured = self.residual = 0.0
        self.left = scenario.requests
        self.there, self.back = (Way(scenario, number) for number in range(2))
        self.coming: list[tuple[int, int, int, Event]] = []
        self.happened = count()
        self.meters = [EngineMeter(str(engine)) for engine in range(scenario.models)]
        self.context = self.device.settings.context_tokens
        self.shared = self._tokens(400)

    def outcome(self) -> Outcome:
        now_ns = NS_PER_SECOND
        starts = sorted(self.random.randrange(200 * MS) for _ in range(self.scenario.clients))
        for client, start_ns in enumerate(starts):
            self._submit(self.scenario.engine_of(client), now_ns + start_ns)
        next_poll_ns, next_turn_ns, next_usage_ns = 0, TURN_NS, USAGE_NS
        next_steps_ns = self._first_reading_ns(now_ns + 200 * MS)
        while self.left or any(one.end_ns is None for one in self.seen.values()):
            next_event_ns = self.coming[0][0] if self.coming else NEVER_NS
            now_ns = self.device.advance(min(next_poll_ns, next_steps_ns, next_event_ns))
            self._take_events(now_ns)
            if now_ns == next_poll_ns:
                self._poll(now_ns)
                next_poll_ns += self.scenario.poll_ms * MS
            if now_ns >= next_usage_ns:
                self._use(next_usage_ns)
                next_usage_ns += USAGE_NS
            if now_ns == next_steps_ns:
                self._count_steps(now_ns)
                next_steps_ns += STEPS_NS
            if now_ns >= next_turn_ns:
                self._turn(now_ns)
                next_turn_ns += TURN_NS
        for _ in range(40):
            self._poll(next_poll_ns)
            next_poll_ns += self.scenario.poll_ms * MS
            if next_poll_ns >= next_usage_ns:
                self._use(next_usage_ns)
                next_usage_ns += USAGE_NS
            if next_poll_ns >= next_steps_ns:
                self._count_steps(next_steps_ns)
                next_steps_ns += STEPS_NS
        self._turn(next_poll_ns + MAX_OPEN_NS + SILENCE_NS)
        truths = {key: self.device.truth(key) for key in self.seen}
        return Outcome(self.energies, truths, self.seen, self.curve, self.measured, self.residual)

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self.random.randrange(32_000) for _ in range(count))

    def _submit(self, engine: int, at_ns: int) -> None:
        self.left -= 1
        late = self.scenario.reload and self.left < self.scenario.requests // 2
        length = round(self.random.lognormvariate(5.3, 0.8)) + 8
        prompt = self._tokens(self.scenario.prompt_tokens or length)
        if self.scenario.prefix_cache:
            prompt = self.shared + prompt
        output = min(800, round(self.random.lognormvariate(5.2, 0.6)) + 4)
        submission = Submission(
            model=OTHER if late else MODEL,
            context_tokens=self.context,
            prompt=prompt[:4_000],
            output_tokens=output,
            finish_reason="length",
        )
        key = self.device.submit(engine, submission, self.there.end_ns(at_ns))
        streamed = self.random.random() < self.scenario.streamed
        self.seen[key] = Seen(submission, at_ns, streamed)
        self.ledger.begin(str(key), [self.domain], at_ns)
        self.meters[engine].begin(str(key), at_ns, streamed=streamed)

    def _take_events(self, now_ns: int) -> None:
        """What has come by now, each at its own time."""
        for key, event in self.device.drain():
            at_ns = self.back.end_ns(event.at_ns)
            heappush(self.coming, (at_ns, next(self.happened), key, event))
        while self.coming and self.coming[0][0] <= now_ns:
            at_ns, _, key, event = heappop(self.coming)
            one = self.seen[key]
            if event.kind is EventKind.TOKEN and one.streamed:
                one.arrivals.append(at_ns)
            elif event.kind is EventKind.FINISHED:
                self._end(key, one, at_ns)
                if self.left:
                    self._submit(key % self.scenario.models, at_ns)

    def _end(self, key: int, one: Seen, at_ns: int) -> None:
        one.end_ns = at_ns
        self.meters[key % self.scenario.models].end(str(key), at_ns)
        truth = self.device.truth(key)
        start_ns = one.sent_ns
        if self.scenario.queue_told and truth.service_start_ns is not None:
            start_ns = truth.service_start_ns
        work = Work.of(
            input_tokens=truth.prompt_tokens,
            cached_tokens=truth.cached_tokens,
            output_tokens=truth.output_tokens,
            arrivals_ns=one.arrivals,
        )
        first_ns = one.arrivals[0] if one.arrivals else None
        load = Interval(one.sent_ns, truth.ready_ns) if truth.ready_ns > one.sent_ns else None
        backend, model = str(key % self.scenario.models), one.submission.model
        service = Interval(start_ns, at_ns)
        span: Span | None = Span(str(key), service, first_ns, load, work, backend, model)
        if self.scenario.phases_told_by and not one.streamed:
            span = service_of(told(key, one, truth, backend, kind=self.scenario.phases_told_by))
        self.ledger.end(str(key), span)

    def _poll(self, at_ns: int) -> None:
        at_ns += self.random.randrange(2 * MS)
        reading = Reading(self.domain, at_ns, 0, energy_uj=self.device.read(at_ns))
        if (bin_ := self.curve.feed(reading)) is not None:
            self.ledger.add(bin_)

    def _use(self, end_ns: int) -> None:
        if self.scenario.foreign_watts:
            shares = self.device.shares(end_ns - USAGE_NS, end_ns)
            reason = "foreign_estimated"
            self.ledger.use(
                Usage(
                    domain=self.domain,
                    start_ns=end_ns - USAGE_NS,
                    end_ns=end_ns,
                    shares=shares,
                    reason=reason,
                )
            )

    def _first_reading_ns(self, from_ns: int) -> int:
        """When the counters are first read: after all have submitted, with unknown phase."""
        if not self.scenario.steps_told:
            return NEVER_NS
        return from_ns + self.reader.randrange(STEPS_NS)

    def _count_steps(self, at_ns: int) -> None:
        """A reading is taken for one of a moment a little before or after it."""
        for engine, meter in enumerate(self.meters):
            seen_ns = at_ns + self.reader.randrange(-MS, MS)
            counters = replace(self.device.counters(engine, at_ns), at_ns=seen_ns)
            for one in meter.feed(counters):
                self.ledger.step(one)

    def _turn(self, now_ns: int) -> None:
        closing = self.ledger.advance(now_ns, wall_offset_ns=0)
        self.energies |= {int(key): energy for key, energy in closing.final.items()}
        self.measured += sum(one.measured_joules for one in closing.minutes)
        self.residual += sum(one.residual_joules for one in closing.minutes)


def told(key: int, one: Seen, truth: Truth, backend: str, *, kind: str) -> RequestTimeline:
    """A whole answer with the durations that a backend of that kind tells in it."""
    started_ns, first_ns, ended_ns = truth.service_start_ns, truth.first_token_ns, truth.end_ns
    assert started_ns is not None
    assert first_ns is not None
    assert ended_ns is not None
    return RequestTimeline(
        id=str(key),
        backend=backend,
        backend_kind=kind,
        model=one.submission.model,
        wall_ns=one.sent_ns,
        sent_ns=one.sent_ns,
        end_ns=one.end_ns,
        reached=True,
        input_tokens=truth.prompt_tokens,
        cached_input_tokens=truth.cached_tokens,
        output_tokens=truth.output_tokens,
        load_seconds=(truth.ready_ns - truth.arrival_ns) / NS_PER_SECOND,
        queue_seconds=(started_ns - truth.ready_ns) / NS_PER_SECOND,
        prefill_seconds=(first_ns - started_ns) / NS_PER_SECOND,
        decode_seconds=(ended_ns - first_ns) / NS_PER_SECOND,
    )
