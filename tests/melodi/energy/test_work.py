"""Tokens are placed where they were seen, or spread where they were not, and none is lost."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.work import Work

SERVICE = (1_000, 11_000)
COUNTS = st.integers(0, 500)


def work(**more: object) -> Work:
    known: dict[str, object] = {
        "input_tokens": 100,
        "cached_tokens": 0,
        "output_tokens": 10,
        "arrivals_ns": range(2_000, 12_000, 1_000),
    }
    return Work.of(**(known | more))  # type: ignore[arg-type]


@given(
    COUNTS,
    st.integers(1, 500),
    st.lists(st.integers(1_000, 11_000), max_size=40).map(sorted),
    st.lists(st.integers(0, 13_000), max_size=8),
    st.booleans(),
)
def test_cutting_a_service_into_stretches_loses_no_token(
    prompt: int, output: int, arrivals: list[int], cuts: list[int], seen: bool
) -> None:
    """All prefill tokens and all but the first output token, whatever the cuts."""
    one = Work.of(input_tokens=prompt, cached_tokens=0, output_tokens=output, arrivals_ns=arrivals)
    first_ns = arrivals[0] if arrivals and seen else None
    edges = sorted({0, 13_000, *cuts})
    parts = [
        one.within(start, end, service=SERVICE, first_ns=first_ns) for start, end in pairwise(edges)
    ]
    assert sum(part.prefill for part in parts) == pytest.approx(prompt)
    assert sum(part.decode for part in parts) == pytest.approx(output - 1)
    if one.streamed:
        assert sum(part.steps for part in parts) == pytest.approx(output)


def test_cached_prompt_tokens_cost_nothing() -> None:
    """They are in the context, and not in the prefill."""
    tokens = work(cached_tokens=90).within(0, 12_000, service=SERVICE, first_ns=2_000)
    assert tokens.prefill == 10
    assert tokens.context > 9 * 100


def test_streamed_tokens_are_where_they_arrived() -> None:
    """Three pieces in the stretch: three tokens, one of them the prefill's."""
    tokens = work().within(0, 4_500, service=SERVICE, first_ns=2_000)
    assert tokens.steps == 3
    assert tokens.decode == 2
    assert tokens.prefill == 100


def test_pieces_are_not_tokens() -> None:
    """Ten pieces that hold 40 tokens: each piece counts for four."""
    tokens = work(output_tokens=40).within(0, 3_500, service=SERVICE, first_ns=2_000)
    assert tokens.steps == 8


def test_unseen_tokens_are_spread_and_are_no_steps() -> None:
    """Without a stream there is nothing to count steps by."""
    tokens = work(arrivals_ns=()).within(6_000, 11_000, service=SERVICE, first_ns=None)
    assert tokens.steps == 0
    assert tokens.decode == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("unknown", ["input_tokens", "output_tokens"])
def test_uncounted_tokens_are_unknown_not_zero(unknown: str) -> None:
    """Then nothing can be weighed by tokens."""
    assert work(**{unknown: None}) is None
    assert work() is not None
