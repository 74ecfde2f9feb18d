"""The cost of a step is found again from bins, and is never negative."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.steps import BINS_NEEDED, StepCosts, non_negative_fit
from melodi.energy.work import Tokens

COSTS = (2.6, 12e-3, 6e-6, 11.5e-3)


def bin_tokens(seed: int) -> list[Tokens]:
    """Some decoding requests in ten steps, and now and then a prefill."""
    random = np.random.default_rng(seed)
    found = [
        Tokens(0.0, steps, steps * random.uniform(100, 2_000), steps)
        for steps in random.integers(1, 11, size=random.integers(1, 20)).astype(float)
    ]
    if random.random() < 0.5:
        found.append(Tokens(float(random.integers(10, 500)), 3.0, 300.0, 4.0))
    return found


def joules(tokens: list[Tokens], costs: tuple[float, ...] = COSTS) -> float:
    fixed, decode, context, prefill = costs
    steps = max(one.steps for one in tokens)
    own = sum(decode * one.decode + context * one.context + prefill * one.prefill for one in tokens)
    return fixed * steps + own


def test_an_additive_cost_is_shared_exactly() -> None:
    """After enough bins the weights are the joules that each request truly caused."""
    costs = StepCosts()
    for seed in range(200):
        tokens = bin_tokens(seed)
        costs.learn(tokens, joules(tokens))
    tokens = bin_tokens(1_000)
    weights = [sum(one) for one in costs.weigh(tokens)]
    assert sum(weights) == pytest.approx(joules(tokens), rel=1e-6)
    heavy = max(range(len(tokens)), key=lambda k: tokens[k].decode + tokens[k].prefill)
    assert weights[heavy] == max(weights)


def test_nothing_is_weighed_before_there_is_a_fit_or_without_a_stream() -> None:
    """Then another policy has to divide."""
    costs = StepCosts()
    assert costs.weigh(bin_tokens(0)) is None
    for seed in range(BINS_NEEDED):
        tokens = bin_tokens(seed)
        costs.learn(tokens, joules(tokens))
    assert costs.weigh(bin_tokens(0)) is not None
    unseen = [Tokens(5.0, 3.0, 300.0, 0.0)]
    assert costs.weigh(unseen) is None


@given(
    st.lists(st.tuples(*[st.floats(0, 1_000)] * 4), min_size=5, max_size=30),
    st.tuples(*[st.floats(-5, 5)] * 4),
)
def test_no_cost_is_negative_and_no_nearby_cost_is_better(
    rows: list[tuple[float, ...]], true: tuple[float, ...]
) -> None:
    """The fit is the optimum over costs of 0 and more."""
    matrix = np.array(rows)
    targets = matrix @ np.array(true)
    found = non_negative_fit(matrix, targets)
    assert (found >= 0).all()
    error = float(np.square(matrix @ found - targets).sum())
    scale = max(1.0, float(np.abs(targets).max()) ** 2)
    for column in range(4):
        for step in (0.01, -0.01):
            other = found.copy()
            other[column] = max(0.0, other[column] + step)
            worse = float(np.square(matrix @ other - targets).sum())
            assert error <= worse + 1e-6 * scale


def test_a_negative_relation_gives_zero_not_a_negative_cost() -> None:
    """Energy that falls with more context is noise."""
    rows = np.array([[10.0, 10.0, k * 100.0, 0.0] for k in range(40)])
    found = non_negative_fit(rows, 50.0 - np.arange(40) * 0.1)
    assert found[2] == 0
