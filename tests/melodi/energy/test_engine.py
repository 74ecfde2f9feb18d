"""An engine's steps put the tokens of requests that nobody streamed where they were made."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.engine import PATIENCE_NS, EngineSteps, StepLog, TokenPace
from melodi.energy.ledger import MAX_OPEN_NS, PREFILL_BY_STEPS, Closing, Ledger
from melodi.energy.policies import policies_for
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy
from melodi.energy.work import PREFILL_PACE, Work

MS = 1_000_000
SECOND = 1_000 * MS
GPU = "gpu:a"
STEPS_A_SECOND = 100


def told(start_ms: int, end_ms: int, steps: float | None, prefill: float = 0.0) -> EngineSteps:
    return EngineSteps(
        backend="b",
        start_ns=start_ms * MS,
        end_ns=end_ms * MS,
        steps=steps,
        prefill_tokens=prefill,
    )


def bin_at(start_ms: int, end_ms: int, *, joules: float = 10.0, before: float = 0.0) -> Bin:
    return Bin(
        domain=GPU,
        start_ns=start_ms * MS,
        end_ns=end_ms * MS,
        energy_uj=round(joules * 1e6),
        total_uj=round((before + joules) * 1e6),
    )


def log_of(*stretches: EngineSteps) -> StepLog:
    log = StepLog()
    for one in stretches:
        log.add(one)
    return log


STRETCHES = st.lists(
    st.tuples(st.integers(0, 500), st.integers(1, 1500), st.integers(0, 200)),
    min_size=1,
    max_size=8,
)


@given(STRETCHES, st.lists(st.integers(1, 12_000), max_size=6))
def test_cutting_time_into_bins_loses_no_step(
    stretches: list[tuple[int, int, int]], cuts: list[int]
) -> None:
    """What lies between two stretches is idle: it has none."""
    log, at_ms = StepLog(), 0
    log.add(told(0, 0, 0))
    for idle_ms, busy_ms, steps in stretches:
        start_ms, at_ms = at_ms + idle_ms, at_ms + idle_ms + busy_ms
        log.add(told(start_ms, at_ms, steps))
    edges = sorted({0, at_ms, *(one for one in cuts if one < at_ms)})
    found = [log.during(bin_at(*pair)) for pair in pairwise(edges)]
    whole = sum(steps for _, _, steps in stretches)
    assert sum(one.steps for one in found if one) == pytest.approx(whole)
    assert all(found)
    if whole:
        first_ns = log.before(at_ms * MS, whole / 2)
        assert first_ns is not None
        half = log.during(bin_at(first_ns // MS, at_ms))
        assert half is not None
        assert half.steps == pytest.approx(whole / 2, abs=0.01 * whole + 200)


def test_steps_are_found_again_going_back_from_the_end() -> None:
    """Over stretches of different pace and the idle time between them."""
    log = log_of(told(0, 0, 0), told(0, 1000, 100), told(2000, 3000, 50))
    assert log.before(3000 * MS, 25) == 2500 * MS
    assert log.before(3000 * MS, 60) == 900 * MS
    assert log.before(2500 * MS, 25) == pytest.approx(2000 * MS, abs=1)
    assert log.before(3000 * MS, 151) is None
    assert log.before(3001 * MS, 1) is None


def test_what_is_not_known_is_not_gone_through() -> None:
    """A restart, or a missed reading: neither a bin in it nor a way back over it is known."""
    log = log_of(told(0, 1000, 100), told(1000, 2000, None), told(2000, 2000, 0))
    log.add(told(2000, 3000, 100))
    assert log.during(bin_at(950, 1050)) is None
    assert log.during(bin_at(1500, 1600)) is None
    assert log.before(2500 * MS, 51) is None
    assert log.before(2500 * MS, 50) is not None
    known = log.during(bin_at(2500, 2600))
    assert known is not None
    assert known.steps == pytest.approx(10)


def test_steps_give_way_to_prompts_and_their_sum_stays() -> None:
    """A second of 90 steps and 1000 prompt tokens, all of these in one of its tenths."""
    log = log_of(told(0, 0, 0), told(0, 1000, 90, prefill=1000))
    tenths = [log.during(bin_at(at, at + 100)) for at in range(0, 1000, 100)]
    read = [1000.0 if at == 3 else 0.0 for at in range(10)]
    steps = [one.steps_beside(tokens) for one, tokens in zip(tenths, read, strict=True) if one]
    assert sum(steps) == pytest.approx(90)
    assert steps[0] == pytest.approx(9 + PREFILL_PACE * 100)
    assert min(steps) == steps[3] < 7


def test_a_bin_of_nothing_but_prompts_tells_no_steps() -> None:
    """What is left after taking much away from little is noise."""
    log = log_of(told(0, 0, 0), told(0, 1000, 90, prefill=1000))
    one = log.during(bin_at(0, 100))
    assert one is not None
    assert one.steps_beside(20_000.0) == 0.0


@pytest.mark.parametrize("pace", [0.001, 0.002, 0.006])
def test_how_long_a_prompt_token_takes_is_learned(pace: float) -> None:
    """From seconds with few and with many of them, whatever the guess was."""
    learner = TokenPace()
    assert learner.steps == PREFILL_PACE
    for second in range(120):
        prompts = 3000.0 * (second % 7) / 6
        steps = 100 - pace * prompts
        learner.learn(
            EngineSteps(
                backend="b",
                start_ns=second * SECOND,
                end_ns=(second + 1) * SECOND,
                steps=round(steps),
                prefill_tokens=prompts,
                output_tokens=8 * steps,
            )
        )
    assert learner.steps == pytest.approx(pace, rel=0.2)


def test_short_stretches_and_a_burst_of_prompts_teach_nothing() -> None:
    """The step that ran at a reading would weigh too much in them."""
    learner = TokenPace()
    learner.learn(told(0, 300, 30, prefill=10))
    learner.learn(told(0, 1000, 20, prefill=20_000))
    assert learner.steps == PREFILL_PACE


def ledger(policy: str = "tokens") -> Ledger:
    facts = DomainFacts(
        name=GPU,
        kind="gpu",
        scope="gpu",
        source="test",
        origin="sensor",
        refresh_ns=100 * MS,
        exclusive=True,
    )
    return Ledger([facts], policies=lambda: policies_for(policy), idle_watts={GPU: 0.0})


def serve(books: Ledger, name: str, start_ms: int, end_ms: int, output: int) -> None:
    """A request that was not streamed; it may have waited."""
    work = Work.of(input_tokens=100, cached_tokens=0, output_tokens=output, arrivals_ns=())
    books.begin(name, [GPU], start_ms * MS)
    service = Interval(start_ms * MS, end_ms * MS)
    books.end(name, Span(name, service, work=work, backend="b", model="m"))


def two_of_which_one_waits(books: Ledger) -> None:
    """Both are sent at 0; `second` decodes from 1000 ms on, when `first` is through."""
    serve(books, "first", 0, 1000, output=99)
    serve(books, "second", 0, 2000, output=100)
    for at in range(0, 2000, 100):
        books.add(bin_at(at, at + 100, before=at / 10))


def close(books: Ledger) -> Closing:
    return books.advance(3 * SECOND + MAX_OPEN_NS, wall_offset_ns=0)


def read_each_second(books: Ledger, seconds: int = 2) -> None:
    books.step(told(0, 0, 0))
    for at in range(seconds):
        books.step(told(at * 1000, (at + 1) * 1000, STEPS_A_SECOND))


def active(energy: RequestEnergy) -> float:
    assert energy.active_joules is not None
    return energy.active_joules


def test_who_waited_for_a_slot_pays_for_its_own_steps_only() -> None:
    """Each had the engine for one second of 100 J; without steps, whoever waits pays."""
    told_books, blind = ledger(), ledger()
    read_each_second(told_books)
    two_of_which_one_waits(told_books)
    two_of_which_one_waits(blind)
    told_final, blind_final = close(told_books).final, close(blind).final
    assert active(told_final["second"]) == pytest.approx(100, rel=0.1)
    assert active(told_final["first"]) == pytest.approx(100, rel=0.1)
    assert active(blind_final["second"]) > 125


def stream(books: Ledger, name: str, first_ms: int, end_ms: int, output: int) -> None:
    """A request that was sent at 0 and streamed from then on."""
    paces = range(output)
    arrivals = [first_ms * MS + (end_ms - first_ms) * MS * k // (output - 1) for k in paces]
    work = Work.of(input_tokens=100, cached_tokens=0, output_tokens=output, arrivals_ns=arrivals)
    books.begin(name, [GPU], 0)
    service = Interval(0, end_ms * MS)
    span = Span(name, service, first_ms * MS, work=work, backend="b", model="m")
    books.end(name, span)


@pytest.mark.parametrize(("first_ms", "waited"), [(1000, True), (60, False)])
def test_a_stream_that_waited_does_not_pay_for_it(first_ms: int, waited: bool) -> None:
    """Time before its prompt was read is no service, if it is clearly more than reading takes."""
    told_books, blind = ledger("time"), ledger("time")
    for at in range(-4, 2):
        told_books.step(told(at * 1000, (at + 1) * 1000, STEPS_A_SECOND))
    for books in (told_books, blind):
        serve(books, "beside", 0, 2000, output=199)
        stream(books, "stream", first_ms, 2000, output=100)
        for at in range(0, 2000, 100):
            books.add(bin_at(at, at + 100, before=at / 10))
    told_joules = active(close(told_books).final["stream"])
    blind_joules = active(close(blind).final["stream"])
    assert blind_joules == pytest.approx(100)
    assert told_joules == pytest.approx(50 if waited else 100, rel=0.05)


def test_a_stream_that_was_held_up_on_the_way_is_shared_as_if_nobody_had_seen_it() -> None:
    """Its 199 tokens came within the last tenth of a second, but no engine makes them so fast."""
    books, whole = ledger("tokens"), ledger("tokens")
    for one in (books, whole):
        for at in range(-4, 2):
            one.step(told(at * 1000, (at + 1) * 1000, STEPS_A_SECOND))
        serve(one, "beside", 0, 2000, output=199)
        for at in range(0, 2000, 100):
            one.add(bin_at(at, at + 100, before=at / 10))
    stream(books, "held", 1900, 2000, output=199)
    serve(whole, "held", 0, 2000, output=199)
    held, like = close(books).final["held"], close(whole).final["held"]
    assert active(held) == pytest.approx(100, rel=0.05)
    assert active(held) == pytest.approx(active(like))
    assert held.prefill_joules == pytest.approx(like.prefill_joules)
    assert PREFILL_BY_STEPS in held.quality_reasons


def test_a_stream_in_large_pieces_was_not_held_up() -> None:
    """Ten tokens in a piece, one of these in each step: so speculative decoding looks."""
    log = log_of(told(0, 0, 0), told(0, 1000, 100))
    pieces = [10 * number * MS for number in range(20)]
    as_made = Work.of(input_tokens=1, cached_tokens=0, output_tokens=200, arrivals_ns=pieces)
    faster = Work.of(
        input_tokens=1, cached_tokens=0, output_tokens=20, arrivals_ns=[one // 3 for one in pieces]
    )
    assert as_made is not None
    assert faster is not None
    assert log.shows(as_made)
    assert not log.shows(faster)
    assert StepLog().shows(faster)


def test_a_guessed_pace_makes_no_stream_wait() -> None:
    """How long a prompt takes to read hangs on the card: it has to be learned first."""
    books = ledger("time")
    read_each_second(books)
    stream(books, "stream", 1000, 2000, output=100)
    for at in range(0, 2000, 100):
        books.add(bin_at(at, at + 100, before=at / 10))
    assert active(close(books).final["stream"]) == pytest.approx(200)


def test_prefill_is_told_apart_where_steps_tell_the_first_token_and_says_so() -> None:
    """Nobody saw it, and without steps the split stays unknown."""
    books, blind = ledger(), ledger()
    read_each_second(books)
    two_of_which_one_waits(books)
    two_of_which_one_waits(blind)
    energy, other = close(books).final["second"], close(blind).final["second"]
    assert energy.prefill_joules is not None
    assert 0 < energy.prefill_joules < active(energy) / 2
    assert PREFILL_BY_STEPS in energy.quality_reasons
    assert other.prefill_joules is None
    assert PREFILL_BY_STEPS not in other.quality_reasons


def test_bins_wait_for_the_reading_that_tells_of_them_but_not_for_ever() -> None:
    """An engine that told something lately will tell more; after five seconds nobody waits."""
    books = ledger()
    read_each_second(books, seconds=1)
    two_of_which_one_waits(books)
    end_ns = 2 * SECOND
    assert books.advance(end_ns + SECOND, wall_offset_ns=0).bins == []
    books.step(told(1000, 2000, STEPS_A_SECOND))
    assert books.advance(end_ns + SECOND, wall_offset_ns=0).final.keys() == {"first", "second"}

    silent = ledger()
    read_each_second(silent, seconds=1)
    two_of_which_one_waits(silent)
    assert silent.advance(end_ns + PATIENCE_NS - 1, wall_offset_ns=0).bins == []
    late = silent.advance(end_ns + PATIENCE_NS, wall_offset_ns=0).final
    assert late["second"].prefill_joules is None


def test_nobody_waits_for_counters_that_are_gone() -> None:
    """The engine stopped telling, and the books were told so."""
    books = ledger()
    read_each_second(books, seconds=1)
    books.step(told(1000, 1000, None))
    two_of_which_one_waits(books)
    assert books.advance(3 * SECOND, wall_offset_ns=0).final.keys() == {"first", "second"}


@given(
    st.lists(
        st.tuples(st.integers(0, 2500), st.integers(1, 2500), st.integers(1, 400)), max_size=6
    ),
    st.lists(st.one_of(st.none(), st.integers(0, 200)), min_size=1, max_size=4),
    st.lists(st.integers(0, 60), min_size=1, max_size=30),
)
def test_whatever_an_engine_tells_every_joule_is_in_an_account_and_within_its_bounds(
    requests: list[tuple[int, int, int]], steps: list[int | None], energies: list[int]
) -> None:
    """Conservation and exclusive bounds hang on no counter."""
    books = ledger("auto")
    for second, made in enumerate(steps):
        books.step(told(second * 1000, (second + 1) * 1000, made, prefill=50.0))
    for number, (start_ms, length_ms, output) in enumerate(requests):
        serve(books, f"r{number}", start_ms, start_ms + length_ms, output)
    total = 0
    for at, joules in enumerate(energies):
        books.add(bin_at(at * 100, at * 100 + 100, joules=joules, before=total))
        total += joules
    closing = books.advance(10 * SECOND + MAX_OPEN_NS, wall_offset_ns=0)
    assert sum(one.measured_joules for one in closing.minutes) == pytest.approx(total)
    assert sum(abs(one.residual_joules) for one in closing.minutes) < 1e-9 * max(1, total)
    for energy in closing.final.values():
        if energy.active_joules is not None and energy.exclusive_high_joules is not None:
            assert energy.exclusive_low_joules is not None
            assert energy.exclusive_low_joules - 1e-6 <= energy.active_joules
            assert energy.active_joules <= energy.exclusive_high_joules + 1e-6
