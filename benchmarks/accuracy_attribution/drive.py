"""Drives the simulator in virtual time under a meter and a ledger, and keeps the truth."""

import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from collectors.base import Domain, Reading
from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, SILENCE_NS, Ledger
from melodi.energy.policies import Policy
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy
from melodi.energy.work import Work
from melodi.sampling.meters import EnergyCurve
from melodi.simulator.core import Core
from melodi.simulator.jobs import EventKind, Submission, Truth
from melodi.simulator.laws import PowerLaw
from melodi.simulator.sensor import PowerSensor
from melodi.simulator.settings import SimulatorSettings

MS = 1_000_000
POLL_NS = 50 * MS
TURN_NS = 500 * MS
MODEL = "simulated"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One closed loop of clients on one simulated device."""

    law: PowerLaw
    clients: int
    refresh_ms: int
    requests: int
    streamed: float = 1.0
    """Share of requests whose tokens are seen as they come."""
    prefix_cache: bool = False
    slots: int = 64
    queue_told: bool = False
    """Whether the backend tells how long a request waited, as Ollama does."""
    seed: int = 0


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
        settings = SimulatorSettings(
            power_law=scenario.law,
            max_running=scenario.slots,
            refresh_ns=scenario.refresh_ms * MS,
            phase_ns=self.random.randrange(scenario.refresh_ms * MS),
            seed=scenario.seed,
        )
        self.core = Core(settings, loaded=(MODEL, settings.context_tokens))
        self.sensor = PowerSensor(self.core)
        domain: Domain = self.sensor.domain
        self.curve = EnergyCurve(domain)
        facts = DomainFacts(
            name=domain.name,
            kind="gpu",
            scope="gpu",
            source="simulated",
            origin="simulator",
            refresh_ns=settings.refresh_ns,
            max_watts=settings.max_watts,
            exclusive=True,
        )
        self.domain = domain.name
        idle = {domain.name: settings.idle_watts}
        self.ledger = Ledger([facts], policies=policies, idle_watts=idle)
        self.seen: dict[int, Seen] = {}
        self.energies: dict[int, RequestEnergy] = {}
        self.measured = self.residual = 0.0
        self.left = scenario.requests
        self.context = settings.context_tokens
        self.shared = self._tokens(400)

    def outcome(self) -> Outcome:
        now_ns = NS_PER_SECOND
        starts = sorted(self.random.randrange(200 * MS) for _ in range(self.scenario.clients))
        for start_ns in starts:
            self._submit(now_ns + start_ns)
        next_poll_ns, next_turn_ns = 0, TURN_NS
        while self.left or any(one.end_ns is None for one in self.seen.values()):
            event_ns = self.core.next_event_ns()
            now_ns = min(next_poll_ns, event_ns if event_ns is not None else next_poll_ns)
            self.core.advance(now_ns)
            self._take_events()
            if now_ns == next_poll_ns:
                self._poll(now_ns)
                next_poll_ns += POLL_NS
            if now_ns >= next_turn_ns:
                self._turn(now_ns)
                next_turn_ns += TURN_NS
        for _ in range(40):
            self._poll(next_poll_ns)
            next_poll_ns += POLL_NS
        self._turn(next_poll_ns + MAX_OPEN_NS + SILENCE_NS)
        truths = {key: self.core.truth(key) for key in self.seen}
        return Outcome(self.energies, truths, self.seen, self.curve, self.measured, self.residual)

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self.random.randrange(32_000) for _ in range(count))

    def _submit(self, at_ns: int) -> None:
        self.left -= 1
        prompt = self._tokens(round(self.random.lognormvariate(5.3, 0.8)) + 8)
        if self.scenario.prefix_cache:
            prompt = self.shared + prompt
        output = min(800, round(self.random.lognormvariate(5.2, 0.6)) + 4)
        submission = Submission(
            model=MODEL,
            context_tokens=self.context,
            prompt=prompt[:4_000],
            output_tokens=output,
            finish_reason="length",
        )
        key = self.core.submit(submission, at_ns)
        streamed = self.random.random() < self.scenario.streamed
        self.seen[key] = Seen(submission, at_ns, streamed)
        self.ledger.begin(str(key), [self.domain], at_ns)

    def _take_events(self) -> None:
        for event in self.core.drain():
            one = self.seen[event.request]
            if event.kind is EventKind.TOKEN and one.streamed:
                one.arrivals.append(event.at_ns)
            elif event.kind is EventKind.FINISHED:
                self._end(event.request, one, event.at_ns)
                if self.left:
                    self._submit(event.at_ns)

    def _end(self, key: int, one: Seen, at_ns: int) -> None:
        one.end_ns = at_ns
        truth = self.core.truth(key)
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
        span = Span(str(key), Interval(start_ns, at_ns), first_ns, work=work)
        self.ledger.end(str(key), span)

    def _poll(self, at_ns: int) -> None:
        at_ns += self.random.randrange(2 * MS)
        energy_uj, power_uw = self.sensor.read(at_ns)
        reading = Reading(self.domain, at_ns, 0, energy_uj=energy_uj, power_uw=power_uw)
        if (bin_ := self.curve.feed(reading)) is not None:
            self.ledger.add(bin_)

    def _turn(self, now_ns: int) -> None:
        closing = self.ledger.advance(now_ns, wall_offset_ns=0)
        self.energies |= {int(key): energy for key, energy in closing.final.items()}
        self.measured += sum(one.measured_joules for one in closing.minutes)
        self.residual += sum(one.residual_joules for one in closing.minutes)
