"""What one engine step takes in time and energy; models of a large GPU, not measurements of one."""

from enum import StrEnum
from typing import NamedTuple

STEP_SECONDS = 8e-3
DECODE_SECONDS = 30e-6
CONTEXT_SECONDS = 20e-9
PREFILL_SECONDS = 22e-6

STEP_JOULES = 2.6
DECODE_JOULES = 12e-3
CONTEXT_JOULES = 6e-6
PREFILL_JOULES = 11.5e-3

CONCAVE_FACTOR = 3.2
CONCAVE_EXPONENT = 0.75
NOISE_RATIO = 0.03
"""Standard deviation of a noisy step's energy, as a share of it."""


class PowerLaw(StrEnum):
    """How a step's energy grows with the work in it."""

    ADDITIVE = "additive"
    """Each piece of work adds its own joules to the step's fixed ones."""
    CONCAVE = "concave"
    """A fuller step is cheaper per piece of work; 3 % noise."""


class StepCost(NamedTuple):
    """Dynamic energy of a step: `fixed_joules` + `factor` x own work of each request in it."""

    fixed_joules: float
    factor: float


def step_seconds(*, decoding: int, context_tokens: int, prefill_tokens: int) -> float:
    """Seconds that a step takes at full clocks.

    `context_tokens` is the sum over the `decoding` requests.
    """
    return (
        STEP_SECONDS
        + DECODE_SECONDS * decoding
        + CONTEXT_SECONDS * context_tokens
        + PREFILL_SECONDS * prefill_tokens
    )


def step_cost(law: PowerLaw, *, work_joules: float, noise: float) -> StepCost:
    """Splits a step's dynamic energy into its fixed part and a factor on own work.

    `work_joules` is the own work of all in the step, above 0; `noise` a standard normal draw.
    """
    if law is PowerLaw.ADDITIVE:
        return StepCost(STEP_JOULES, 1.0)
    scale = 1.0 + NOISE_RATIO * noise
    factor = CONCAVE_FACTOR * work_joules ** (CONCAVE_EXPONENT - 1.0)
    return StepCost(scale * STEP_JOULES, scale * factor)
