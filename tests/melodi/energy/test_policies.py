"""Policies share what the simulator truly used, better the more they know."""

from dataclasses import replace
from functools import partial
from statistics import median

import pytest

from benchmarks.accuracy_attribution.drive import Outcome, drive
from benchmarks.accuracy_attribution.scenario import Scenario
from melodi.energy.policies import policies_for
from melodi.simulator.laws import PowerLaw


def run(policy: str, *, clients: int, streamed: float = 1.0, **more: object) -> Outcome:
    scenario = Scenario(
        law=PowerLaw.ADDITIVE,
        clients=clients,
        refresh_ms=100,
        requests=clients * 8,
        streamed=streamed,
        seed=3,
    )
    return drive(replace(scenario, **more), partial(policies_for, policy))  # type: ignore[arg-type]


def error(outcome: Outcome) -> float:
    """Median relative error of active energy over requests of a second and more."""
    errors = []
    for key, energy in outcome.energies.items():
        seen, truth = outcome.seen[key], outcome.truths[key]
        if seen.end_ns - seen.sent_ns >= 1_000_000_000:
            errors.append(abs(energy.active_joules / truth.true_active_joules - 1))
    assert len(errors) > 10
    return median(errors)


def test_streams_at_sixteen_are_shared_within_two_percent() -> None:
    """By steps that were counted from arrivals; by time it is far worse."""
    by_steps, by_time = error(run("auto", clients=16)), error(run("time", clients=16))
    assert by_steps < 0.02
    assert by_steps < by_time / 2


def test_bounds_and_books_hold_under_every_policy() -> None:
    """Exclusive bounds hold the truth, the ledger closes, most bounds hold the energy."""
    for policy in ("auto", "steps", "tokens", "time"):
        outcome = run(policy, clients=8, streamed=0.5)
        assert abs(outcome.residual_joules) <= 1e-9 * outcome.measured_joules
        held = 0
        for key, energy in outcome.energies.items():
            truth = outcome.truths[key]
            active = truth.true_active_joules
            assert energy.exclusive_low_joules - 1e-6 <= active
            assert active <= energy.exclusive_high_joules + 1e-6
            total = active + truth.true_idle_share_joules
            held += energy.low_joules <= total <= energy.high_joules
        assert held >= 0.9 * len(outcome.energies)


def test_where_nothing_streams_auto_is_no_worse_than_time() -> None:
    """Among few it goes by time, among many by tokens."""
    for clients in (2, 16):
        unseen = error(run("auto", clients=clients, streamed=0.0))
        assert unseen <= error(run("time", clients=clients, streamed=0.0)) * 1.05


def test_a_queue_told_by_the_backend_takes_nothing() -> None:
    """One slot, four clients: each is billed for the time that it ran."""
    assert error(run("auto", clients=4, slots=1, queue_told=True)) < 0.02


def test_an_unknown_policy_is_named_with_the_known_ones() -> None:
    """The message says what to write."""
    with pytest.raises(ValueError, match="use auto, steps, tokens, time"):
        policies_for("equal")


@pytest.mark.parametrize("held_up_ms", [0, 200])
def test_reading_a_tiny_prompt_is_never_free(held_up_ms: float) -> None:
    """Seven tokens among hundreds: their price and a step's may be fitted as 0 in all the noise."""
    more = {"law": PowerLaw.CONCAVE, "slots": 2, "steps_told": True, "seed": 1}
    outcome = run("auto", clients=8, streamed=0.0, prompt_tokens=7, held_up_ms=held_up_ms, **more)
    told = {key: one for key, one in outcome.energies.items() if one.prefill_joules is not None}
    assert len(told) > len(outcome.energies) / 2
    for key, energy in told.items():
        assert energy.prefill_joules > 0.2 * outcome.truths[key].true_prefill_joules


def test_what_a_record_holds_are_plain_numbers() -> None:
    """A number of another library's own type could not be stored or sent."""
    outcome = run("auto", clients=4)
    assert outcome.energies
    for energy in outcome.energies.values():
        for name in ("energy_joules", "active_joules", "prefill_joules", "low_joules"):
            assert type(getattr(energy, name)) is float
