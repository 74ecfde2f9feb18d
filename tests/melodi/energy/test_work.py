"""Tokens are placed where they were seen, or spread where they were not, and none is lost."""

from array import array
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.attendance import attendances
from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.roster import Roster
from melodi.energy.work import CONTEXT, MADE, PRESENT, READ, Work, held_up_ns

SERVICE = Interval(1_000, 11_000)
COUNTS = st.integers(0, 500)


@dataclass(frozen=True)
class Done:
    """What one request did in a stretch of time."""

    prefill: float
    made: float
    context: float
    present: float


def work(**more: object) -> Work:
    known: dict[str, object] = {
        "input_tokens": 100,
        "cached_tokens": 0,
        "output_tokens": 10,
        "arrivals_ns": range(2_000, 12_000, 1_000),
    }
    return Work.of(**(known | more))  # type: ignore[arg-type]


def within(*works: Work, start: int, end: int, first_ns: int | None = None) -> list[Done]:
    """What each of some requests of the same service did in [start, end)."""
    roster = Roster()
    rows = []
    for one in works:
        rows.append(roster.enter(0, holders=1))
        first = first_ns if one.per_piece else None
        roster.tell(rows[-1], Span("r", SERVICE, first, work=one), waits=False)
    roster.write()
    bin_ = Bin(domain="gpu:a", start_ns=start, end_ns=end, energy_uj=1, total_uj=1)
    guests = roster.touching([(bin_, np.array(rows))])
    if len(guests) == 0:
        return [Done(0.0, 0.0, 0.0, 0.0)] * len(works)
    (group,), deeds = attendances(guests, [None])
    assert group.counted
    columns = deeds.done[[READ, MADE, CONTEXT, PRESENT]]
    assert columns[-1].max() <= group.steps
    return [Done(*one) for one in columns.T.tolist()]


@given(
    COUNTS,
    st.integers(1, 500),
    st.lists(st.integers(1_000, 10_999), max_size=40).map(sorted),
    st.lists(st.integers(0, 13_000), max_size=8),
    st.booleans(),
)
def test_cutting_a_service_into_stretches_loses_no_token(
    prompt: int, output: int, arrivals: list[int], cuts: list[int], seen: bool
) -> None:
    """All prefill tokens and all output tokens, whatever the cuts."""
    one = Work.of(input_tokens=prompt, cached_tokens=0, output_tokens=output, arrivals_ns=arrivals)
    first_ns = arrivals[0] if arrivals and seen else None
    edges = sorted({0, 13_000, *cuts})
    parts = [
        within(one, start=start, end=end, first_ns=first_ns)[0] for start, end in pairwise(edges)
    ]
    assert sum(part.prefill for part in parts) == pytest.approx(prompt)
    assert sum(part.made for part in parts) == pytest.approx(output)


def test_cached_prompt_tokens_cost_nothing() -> None:
    """They are in the context, and not in the prefill."""
    (tokens,) = within(work(cached_tokens=90), start=0, end=12_000, first_ns=2_000)
    assert tokens.prefill == pytest.approx(10)
    assert tokens.context > 9 * 100


def test_streamed_tokens_are_where_they_arrived() -> None:
    """Three pieces in the stretch: three tokens, the first of them the prefill's."""
    (tokens,) = within(work(), start=0, end=4_001, first_ns=2_000)
    assert tokens.present == pytest.approx(3, rel=1e-3)
    assert tokens.made == 3
    assert tokens.prefill == pytest.approx(100)


def test_pieces_are_not_tokens() -> None:
    """Ten pieces that hold 40 tokens: each piece counts for four."""
    (tokens,) = within(work(output_tokens=40), start=0, end=3_500, first_ns=2_000)
    assert tokens.present == 8


def test_unseen_tokens_are_spread_and_tell_no_steps() -> None:
    """Without a stream there is nothing to count steps by."""
    (tokens,) = within(work(arrivals_ns=()), start=6_000, end=11_000)
    assert tokens.present == 0
    assert tokens.made == pytest.approx(5, abs=0.6)


def test_unseen_tokens_keep_the_pace_of_the_streams_beside_them() -> None:
    """Whoever decodes is in every step, so it got as many tokens as the stream did."""
    hurried = work(arrivals_ns=[2_000, *range(2_500, 7_000, 500), 11_000], output_tokens=11)
    stream, unseen = within(hurried, work(arrivals_ns=()), start=4_000, end=6_000, first_ns=2_000)
    assert stream.made == 4
    assert unseen.made == pytest.approx(4)


def test_who_must_have_waited_was_not_in_every_step() -> None:
    """Four tokens in a service of ten of the stream's: in no stretch more than its own pace."""
    waited = work(output_tokens=4, arrivals_ns=())
    stream, unseen = within(work(), waited, start=0, end=12_000, first_ns=2_000)
    assert stream.made == pytest.approx(10)
    assert unseen.made == pytest.approx(4)


def test_the_prompt_was_read_just_before_the_first_token() -> None:
    """What lies between sending and that is waiting, as in a queue that nobody told of."""
    early, late = (
        within(work(), start=start, end=start + 2_000, first_ns=9_000)[0]
        for start in (1_000, 7_500)
    )
    assert early.prefill == 0
    assert late.prefill == pytest.approx(100)


@pytest.mark.parametrize("unknown", ["input_tokens", "output_tokens"])
def test_uncounted_tokens_are_unknown_not_zero(unknown: str) -> None:
    """Then nothing can be weighed by tokens."""
    assert work(**{unknown: None}) is None
    assert work() is not None


@pytest.mark.parametrize(
    ("arrivals", "end", "late"),
    [
        ([], 900, 0),
        ([100], 900, 0),
        ([100, 110, 120, 130], 130, 0),
        ([100, 110, 160, 160, 160], 160, 35),
        ([100, 110, 120, 130], 180, 40),
    ],
)
def test_the_longest_gap_shows_how_long_pieces_were_held_up(
    arrivals: list[int], end: int, late: int
) -> None:
    """Beyond what they take in the mean; the end counts like a piece, one alone shows nothing."""
    assert held_up_ns(array("q", arrivals), end) == late
