"""The cost of a step is found again from bins, and is never negative."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.bins import Bin
from melodi.energy.columns import Vector
from melodi.energy.steps import ROWS_NEEDED, StepCosts, non_negative_fit
from melodi.energy.work import CONTEXT, MADE, PRESENT, READ

COSTS = (2.6, 12e-3, 6e-6, 11.5e-3)


def bin_at(number: int) -> Bin:
    """Bins that follow one another."""
    return Bin(domain="gpu:a", start_ns=number, end_ns=number + 1, energy_uj=1, total_uj=number)


class Work(NamedTuple):
    """What was done in a bin: a row for each of TIME ... CONTEXT, a column for each request."""

    each: Vector
    steps: float

    @property
    def all(self) -> list[float]:
        """What all did together."""
        return self.each.sum(axis=1).tolist()


def work_of(prefill: list[float], decode: list[float], context: list[float]) -> Work:
    """Everybody is in as many steps as it got tokens."""
    return Work(np.array([[1.0] * len(decode), prefill, decode, decode, context]), max(decode))


def bin_work(seed: int) -> Work:
    """Some decoding requests in ten steps, and now and then a prefill."""
    random = np.random.default_rng(seed)
    decode = random.integers(1, 11, size=random.integers(1, 20)).astype(float).tolist()
    context = [one * random.uniform(100, 2_000) for one in decode]
    prefill = [0.0] * len(decode)
    if random.random() < 0.5:
        prefill[0] = float(random.integers(10, 500))
    return work_of(prefill, decode, context)


def joules(work: Work, costs: tuple[float, ...] = COSTS) -> float:
    fixed, decode, context, prefill = costs
    own = decode * work.each[MADE] + context * work.each[CONTEXT] + prefill * work.each[READ]
    return fixed * work.steps + float(own.sum())


def teach(costs: StepCosts, seed: int, active_joules: float) -> None:
    work = bin_work(seed)
    costs.learn(bin_at(seed), work.all, steps=work.steps, active_joules=active_joules)


def taught(bins: int) -> StepCosts:
    costs = StepCosts()
    for seed in range(bins):
        teach(costs, seed, joules(bin_work(seed)))
    return costs


def weights(costs: StepCosts, work: Work) -> Vector | None:
    """The joules of each request; None where there are no prices."""
    prices = costs.prices(work.all, steps=work.steps)
    return None if prices is None else np.array(prices) @ work.each


def test_an_additive_cost_is_shared_exactly() -> None:
    """After enough bins the weights are the joules that each request truly caused."""
    work = bin_work(1_000)
    fixed = COSTS[0] * work.steps * work.each[PRESENT] / work.each[PRESENT].sum()
    own = COSTS[1] * work.each[MADE] + COSTS[2] * work.each[CONTEXT]
    own += COSTS[3] * work.each[READ]
    assert weights(taught(200), work) == pytest.approx(fixed + own, rel=1e-5)


def test_nothing_is_weighed_before_there_is_a_fit_or_without_a_stream() -> None:
    """Then another policy has to divide."""
    assert weights(StepCosts(), bin_work(0)) is None
    assert weights(taught(ROWS_NEEDED - 1), bin_work(0)) is None
    costs = taught(ROWS_NEEDED)
    assert weights(costs, bin_work(0)) is not None
    unseen = work_of([5.0], [3.0], [300.0])._replace(steps=0.0)
    assert weights(costs, unseen) is None


def test_energy_that_an_edge_put_into_the_next_bin_does_not_spoil_the_costs() -> None:
    """Bins that follow one another are summed, so what one misses the next makes up for."""
    costs, late = StepCosts(), 0.0
    for seed in range(400):
        work = bin_work(seed)
        shift = work.all[READ] * COSTS[3] * (seed % 2)
        teach(costs, seed, joules(work) - shift + late)
        late = shift
    work = work_of([300.0, 0.0], [5.0, 5.0], [500.0, 500.0])
    prices = costs.prices(work.all, steps=work.steps)
    assert prices is not None
    share = 300 * prices[READ] / (np.array(prices) @ work.each).sum()
    assert share == pytest.approx(300 * COSTS[3] / joules(work), rel=0.1)


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


def test_work_that_draws_nothing_costs_nothing() -> None:
    """Bins at the idle floor: all costs are 0, fit after fit, and steps then weigh nobody."""
    costs = StepCosts()
    for seed in range(3 * ROWS_NEEDED):
        teach(costs, seed, 0.0)
    assert weights(costs, bin_work(0)).sum() == 0
