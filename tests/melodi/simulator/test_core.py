"""The engine in virtual time: laws that hold for any traffic, then examples by hand."""

import threading
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
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


@settings(deadline=None)
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


@settings(deadline=None)
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


@settings(deadline=None)
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


@settings(deadline=None)
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


def _core(**changes: object) -> Core:
    return Core(SimulatorSettings(**changes), loaded=("m", 0))  # type: ignore[arg-type]


def _submission(prompt_tokens: int, output_tokens: int, *, first: int = 0) -> Submission:
    prompt = range(first, first + prompt_tokens)
    return Submission(model="m", prompt=prompt, output_tokens=output_tokens)


def _events(core: Core, until_ns: int = 100 * SECOND) -> list[Event]:
    core.advance(until_ns)
    return core.drain()


def test_a_lone_request_costs_what_the_law_says() -> None:
    """100 prompt tokens and 3 answer tokens: one prefill step and two of decoding, by hand."""
    core = _core()
    request = core.submit(_submission(100, 3), 7 * MS)
    _events(core)
    truth = core.truth(request)
    assert truth.true_prefill_joules == pytest.approx(2.6 + 100 * 0.0115)
    assert truth.true_decode_joules == pytest.approx(2 * (2.6 + 0.012) + 6e-6 * (101 + 102))
    prefill_ns = 8 * MS + 100 * 22_000
    assert truth.service_start_ns == 7 * MS
    assert truth.first_token_ns == 7 * MS + prefill_ns
    assert truth.end_ns == truth.first_token_ns + 2 * (8 * MS + 30_000) + 20 * (101 + 102)
    assert truth.true_idle_share_joules == pytest.approx(110 * (truth.end_ns - 7 * MS) / SECOND)
    assert (truth.steps, truth.output_tokens, truth.reason) == (3, 3, "stop")


def test_the_fixed_part_of_a_step_is_divided_equally_and_work_by_owner() -> None:
    """Two that prefill together: 1.3 J each, and each its own tokens; idle power is halved."""
    core = _core()
    core.submit(_submission(1, 1), 0)
    short, long = (core.submit(_submission(n, 1, first=n * 1000), 1) for n in (10, 300))
    _events(core)
    assert core.truth(short).true_active_joules == pytest.approx(1.3 + 10 * 0.0115)
    assert core.truth(long).true_active_joules == pytest.approx(1.3 + 300 * 0.0115)
    shares = [core.truth(request).true_idle_share_joules for request in (short, long)]
    assert shares == pytest.approx([110 * (0.008 + 310 * 22e-6) / 2] * 2)


def test_long_prompts_are_read_in_chunks_beside_decoding() -> None:
    """With 65 tokens a step, 129 prompt tokens take three steps beside one that decodes."""
    core = _core(max_step_tokens=65)
    talker = core.submit(_submission(1, 50), 0)
    reader = core.submit(_submission(129, 1, first=1000), 1)
    events = _events(core)
    first = next(e.at_ns for e in events if e.request == reader and e.kind is EventKind.TOKEN)
    meanwhile = [e for e in events if e.request == talker and e.at_ns <= first]
    assert sum(e.kind is EventKind.TOKEN for e in meanwhile) == 1 + 3
    assert core.truth(reader).steps == 3


def test_requests_are_served_in_the_order_they_came() -> None:
    """With one slot each waits for all before it, and takes no joules while it waits."""
    core = _core(max_running=1)
    ids = [core.submit(_submission(20, 5, first=n * 100), n) for n in range(4)]
    events = _events(core)
    assert [e.request for e in events if e.kind is EventKind.STARTED] == ids
    alone = core.truth(ids[0])
    assert all(
        core.truth(request).true_active_joules == pytest.approx(alone.true_active_joules)
        for request in ids
    )
    ends = [core.truth(request).end_ns for request in ids]
    assert [core.truth(request).service_start_ns for request in ids[1:]] == ends[:-1]


def test_a_prompt_seen_before_costs_only_what_is_new() -> None:
    """Of 160 tokens seen before, 144 are cached: whole blocks, less the one with the last token."""
    core = _core()
    core.submit(_submission(160, 1), 0)
    again = core.submit(_submission(160, 1), SECOND)
    _events(core)
    truth = core.truth(again)
    assert (truth.prompt_tokens, truth.cached_tokens) == (160, 144)
    assert truth.true_prefill_joules == pytest.approx(2.6 + 16 * 0.0115)


def test_the_first_request_waits_for_its_model_and_pays_the_load() -> None:
    """2 s at 110 + 120 W go to `load` of the first alone; both were ready when it was done."""
    core = Core(SimulatorSettings(load_seconds=2.0, load_watts=120.0))
    first, second = (core.submit(_submission(20, 2, first=n), n * MS) for n in (0, 100))
    _events(core)
    assert core.truth(first).true_load_joules == pytest.approx(2 * 230)
    assert core.truth(second).true_load_joules == 0.0
    assert {core.truth(request).ready_ns for request in (first, second)} == {2 * SECOND}
    assert core.truth(first).service_start_ns == 2 * SECOND


def test_another_model_waits_until_nobody_runs_and_loads_then() -> None:
    """One model is in memory at a time; a wish for another context is another model."""
    core = _core(load_seconds=1.0)
    running = core.submit(_submission(20, 5), 0)
    other = core.submit(
        Submission(model="m", context_tokens=512, prompt=range(20), output_tokens=1), 1
    )
    _events(core)
    assert core.truth(other).service_start_ns == (core.truth(running).end_ns or 0) + SECOND
    loaded = core.loaded(100 * SECOND)
    assert loaded is not None
    assert (loaded.model, loaded.context_tokens) == ("m", 512)


def test_a_model_leaves_memory_when_its_time_is_up() -> None:
    """After keep-alive the model is gone, its prefixes too, and the next request loads it."""
    core = _core(load_seconds=1.0)
    brief = Submission(model="m", prompt=range(40), output_tokens=1, keep_alive_ns=SECOND)
    first = core.submit(brief, 0)
    end_ns = _events(core, SECOND // 2)[-1].at_ns
    kept = core.loaded(end_ns + SECOND - 1)
    assert kept is not None
    assert kept.expires_ns == end_ns + SECOND
    assert core.loaded(end_ns + SECOND) is None
    second = core.submit(brief, end_ns + SECOND)
    _events(core)
    assert core.truth(first).true_load_joules == 0.0
    assert core.truth(second).true_load_joules > 0.0
    assert core.truth(second).cached_tokens == 0


def test_loading_and_unloading_can_be_asked_for() -> None:
    """A request without a prompt loads and ends; unloading waits for those that run."""
    core = Core(SimulatorSettings(load_seconds=1.0))
    request = core.submit(Submission(model="m"), 0)
    events = _events(core)
    assert [(e.request, e.at_ns, e.reason) for e in events] == [(request, SECOND, "load")]
    core.submit(_submission(10, 50), 100 * SECOND)
    core.unload("m", 100 * SECOND + 1)
    assert core.loaded(100 * SECOND + 2) is not None
    assert core.loaded(200 * SECOND) is None


def test_cancelling_in_the_queue_is_free_and_immediate() -> None:
    """A request that never ran costs nothing and ends when it is cancelled."""
    core = _core(max_running=1)
    core.submit(_submission(20, 50), 0)
    queued = core.submit(_submission(20, 50, first=100), 1)
    core.cancel(queued, 5 * MS)
    truth = core.truth(queued)
    assert (truth.end_ns, truth.reason, truth.true_active_joules) == (5 * MS, "cancelled", 0.0)


def test_cancelling_in_service_takes_effect_when_the_step_ends() -> None:
    """The step under way is paid for and its token is lost; no further step runs."""
    core = _core()
    request = core.submit(_submission(20, 50), 0)
    first_ns = 8 * MS + 20 * 22_000
    core.cancel(request, first_ns + 1)
    _events(core)
    truth = core.truth(request)
    assert truth.end_ns == first_ns + 8 * MS + 30_000 + 20 * 21
    assert (truth.steps, truth.output_tokens, truth.reason) == (2, 1, "cancelled")
    assert core.totals().steps == 2


def test_a_device_that_would_draw_too_much_takes_longer() -> None:
    """Under the concave law a large prefill is stretched to 490 W above idle."""
    core = _core(power_law=PowerLaw.CONCAVE)
    core.submit(_submission(1000, 1), 0)
    assert core.power_uw(MS) == pytest.approx(600e6, rel=1e-6)
    end_ns = _events(core)[-1].at_ns
    assert end_ns > 8 * MS + 1000 * 22_000


def test_a_tail_draws_after_work_and_ends_with_new_work() -> None:
    """Half a second at 80 W after the last step; new work after 0.1 s leaves 8 J of it."""
    core = _core(tail_watts=80.0, tail_seconds=0.5)
    core.submit(_submission(10, 2), 0)
    end_ns = _events(core, SECOND // 20)[-1].at_ns
    assert core.power_uw(end_ns + 1) == 190_000_000
    core.submit(_submission(10, 2, first=50), end_ns + SECOND // 10)
    core.advance(end_ns + SECOND // 10 + 50 * MS)
    assert core.totals().tail_joules < 8.0 + 80 * 0.05
    core.advance(100 * SECOND)
    assert core.totals().tail_joules == pytest.approx(8.0 + 40.0)
    core.submit(_submission(10, 2, first=90), 100 * SECOND)
    core.advance(200 * SECOND)
    assert core.totals().tail_joules == pytest.approx(8.0 + 40.0 + 40.0)


def test_touching_an_idle_model_starts_no_tail() -> None:
    """A load that finds its model in memory does no work, so nothing is drawn after it."""
    core = _core(tail_watts=80.0, tail_seconds=0.5)
    core.submit(Submission(model="m"), SECOND)
    core.advance(10 * SECOND)
    assert core.energy_uj(10 * SECOND) == 1_100_000_000


def test_an_undrained_event_is_what_comes_next() -> None:
    """Whoever advances the core, the consumer is told to come for what has happened."""
    core = _core()
    core.submit(_submission(20, 1), 3)
    core.energy_uj(10 * SECOND)
    assert core.next_event_ns() == 3
    core.drain()
    assert core.next_event_ns() is None


def test_a_submission_dated_before_the_present_arrives_now() -> None:
    """Another thread may have advanced the core: the past stays as it was."""
    core = _core()
    before = core.energy_uj(SECOND)
    request = core.submit(_submission(20, 1), SECOND // 2)
    assert core.truth(request).arrival_ns == SECOND
    assert core.energy_uj(SECOND) == before


def test_output_tokens_count_as_they_come() -> None:
    """A scrape in the midst of an answer sees the tokens so far, not only finished answers'."""
    core = _core()
    core.submit(_submission(20, 50), 0)
    core.advance(100 * MS)
    spoken = [event for event in core.drain() if event.kind is EventKind.TOKEN]
    assert core.totals().output_tokens == len(spoken) == 12


def test_an_unknown_request_has_no_truth() -> None:
    """Asking for the truth of a request that never was is a KeyError."""
    with pytest.raises(KeyError):
        _core().truth(17)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_a_reading_thread_and_a_serving_thread_keep_the_books(seed: int) -> None:
    """While one thread reads energy, which never falls, another submits, and sums still hold."""
    core = _core(seed=seed)
    done = threading.Event()
    energies: list[int] = []

    def read() -> None:
        at_ns = 0
        while not done.is_set():
            energies.append(core.energy_uj(at_ns))
            at_ns += MS

    reader = threading.Thread(target=read)
    reader.start()
    ids = [core.submit(_submission(20, 5, first=n), n * MS) for n in range(100)]
    done.set()
    reader.join()
    core.advance(10_000 * SECOND)
    totals = core.totals()
    active = sum(core.truth(request).true_active_joules for request in ids)
    assert active == pytest.approx(totals.active_joules, rel=1e-9)
    assert energies == sorted(energies)
