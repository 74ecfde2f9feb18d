"""The engine in virtual time: laws that hold for any traffic."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.simulator.core import Core
from melodi.simulator.jobs import Event, EventKind, Submission, Truth
from melodi.simulator.laws import PowerLaw
from melodi.simulator.settings import SimulatorSettings

MS = 1_000_000
SECOND = 1_000 * MS


@dataclass(frozen=True)
class Arrival:
    """One request of a traffic: when, what, and whether it is given up."""

    at_ns: int
    submission: Submission
    cancel_after_ns: int | None


@dataclass
class Outcome:
    """What came of a traffic."""

    core: Core
    end_ns: int
    ids: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def truths(self) -> list[Truth]:
        return [self.core.truth(request) for request in self.ids]


@st.composite
def arrivals(draw: st.DrawFn) -> Arrival:
    prompt_tokens = draw(st.integers(0, 200))
    outputs = draw(st.integers(0, 20)) if prompt_tokens else 0
    return Arrival(
        at_ns=draw(st.integers(0, 3 * SECOND)),
        submission=Submission(
            model=draw(st.sampled_from(["m", "m", "m", "other"])),
            prompt=range(draw(st.integers(0, 1)), prompt_tokens + 1)[:prompt_tokens],
            output_tokens=outputs,
            keep_alive_ns=draw(st.sampled_from([None, 0, SECOND // 2])),
        ),
        cancel_after_ns=draw(st.none() | st.integers(0, SECOND)),
    )


traffics = st.lists(arrivals(), min_size=1, max_size=12)
servers = st.builds(
    SimulatorSettings,
    max_running=st.integers(1, 6),
    max_step_tokens=st.integers(6, 256),
    power_law=st.sampled_from(PowerLaw),
    seed=st.integers(0, 5),
    load_seconds=st.sampled_from([0.0, 0.3]),
    tail_watts=st.sampled_from([0.0, 80.0]),
    tail_seconds=st.sampled_from([0.0, 0.2]),
)


def run(server: SimulatorSettings, traffic: list[Arrival], *, looks_ns: list[int]) -> Outcome:
    """Play `traffic` to its end, reading energy at `looks_ns` on the way."""
    core = Core(server)
    outcome = Outcome(core, 0)
    order: list[tuple[int, int, Arrival | int | None]] = [(at_ns, 2, None) for at_ns in looks_ns]
    order += [(arrival.at_ns, 0, arrival) for arrival in traffic]
    while order:
        order.sort(key=lambda entry: entry[:2])
        at_ns, _, what = order.pop(0)
        if isinstance(what, Arrival):
            request = core.submit(what.submission, at_ns)
            outcome.ids.append(request)
            if what.cancel_after_ns is not None:
                order.append((at_ns + what.cancel_after_ns, 1, request))
        elif what is None:
            core.energy_uj(at_ns)
        else:
            core.cancel(what, at_ns)
    while (next_ns := core.next_event_ns()) is not None:
        core.advance(next_ns)
        outcome.events += core.drain()
    outcome.end_ns = 1_000 * SECOND
    core.advance(outcome.end_ns)
    return outcome


@given(servers, traffics)
def test_every_joule_is_somebodys(server: SimulatorSettings, traffic: list[Arrival]) -> None:
    """Truths of all requests, idle time with nobody and the tail add up to the energy drawn."""
    outcome = run(server, traffic, looks_ns=[])
    totals = outcome.core.totals()
    requests = sum(
        truth.true_active_joules + truth.true_idle_share_joules + truth.true_load_joules
        for truth in outcome.truths
    )
    everything = requests + totals.idle_joules + totals.tail_joules
    energy = outcome.core.energy_uj(outcome.end_ns) / 1e6
    assert everything == pytest.approx(energy, rel=1e-9, abs=1e-6)
    assert totals.energy_joules == pytest.approx(energy, rel=1e-9, abs=1e-6)
    for truth in outcome.truths:
        both = truth.true_prefill_joules + truth.true_decode_joules
        assert truth.true_active_joules == pytest.approx(both)


@given(servers, traffics, st.lists(st.integers(0, 5 * SECOND), max_size=30))
def test_looking_changes_nothing(
    server: SimulatorSettings, traffic: list[Arrival], looks_ns: list[int]
) -> None:
    """However often somebody reads, truths, events and energy are the same to the last bit."""
    plain = run(server, traffic, looks_ns=[])
    watched = run(server, traffic, looks_ns=looks_ns)
    assert plain.truths == watched.truths
    assert plain.events == watched.events
    for at_ns in looks_ns:
        assert plain.core.energy_uj(at_ns) == watched.core.energy_uj(at_ns)


@given(servers, traffics, st.lists(st.integers(0, 6 * SECOND), min_size=2, max_size=40))
def test_energy_grows_within_the_limits_of_the_device(
    server: SimulatorSettings, traffic: list[Arrival], looks_ns: list[int]
) -> None:
    """Between two moments at least idle and at most the greatest power is drawn."""
    outcome = run(server, traffic, looks_ns=[])
    looks_ns = sorted(looks_ns)
    energies = [outcome.core.energy_uj(at_ns) for at_ns in looks_ns]
    for start, end in pairwise(zip(looks_ns, energies, strict=True)):
        seconds, drawn_uj = (end[0] - start[0]) / SECOND, end[1] - start[1]
        assert drawn_uj >= int(server.idle_watts * seconds * 1e6) - 2
        assert drawn_uj <= server.max_watts * (1 + 1e-6) * seconds * 1e6 + 2


@given(servers, traffics)
def test_every_request_starts_speaks_and_ends_in_order(
    server: SimulatorSettings, traffic: list[Arrival]
) -> None:
    """Tokens come one by one, one end closes each request, and slots are never exceeded."""
    outcome = run(server, traffic, looks_ns=[])
    times = [event.at_ns for event in outcome.events]
    assert times == sorted(times)
    ordered = sorted(traffic, key=lambda arrival: arrival.at_ns)
    serving: set[int] = set()
    for event in outcome.events:
        if event.kind is EventKind.STARTED:
            serving.add(event.request)
            assert len(serving) <= server.max_running
        elif event.kind is EventKind.FINISHED:
            serving.discard(event.request)
    for arrival, request in zip(ordered, outcome.ids, strict=True):
        own = [event for event in outcome.events if event.request == request]
        spoken = [event.tokens for event in own if event.kind is EventKind.TOKEN]
        assert spoken == list(range(1, len(spoken) + 1))
        assert [event.kind for event in own].count(EventKind.FINISHED) == 1
        assert own[-1].kind is EventKind.FINISHED
        if own[-1].reason != "cancelled":
            assert len(spoken) == arrival.submission.output_tokens
