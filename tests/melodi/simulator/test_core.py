"""The engine in virtual time: examples reckoned by hand."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melodi.simulator.core import Core
from melodi.simulator.jobs import Event, EventKind, Submission
from melodi.simulator.laws import PowerLaw
from melodi.simulator.settings import SimulatorSettings

MS = 1_000_000
SECOND = 1_000 * MS


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


@settings(max_examples=5)
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
