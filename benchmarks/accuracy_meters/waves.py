"""Power that is known at every instant: square waves, ramps, and what decoding looks like."""

import random
from dataclasses import dataclass
from typing import Protocol

Script = list[tuple[float, float]]

STEP_SECONDS = 1e-6
LIMIT_WATTS = 700
ROUND_SECONDS = 40.0
SQUARE_SECONDS = (0.06, 0.14, 0.7, 3.0)
RAMP_SECONDS = (0.5, 1.3, 4.0)


@dataclass(frozen=True, slots=True)
class Wave:
    """Power as (seconds, watts) with lines between the points, over and over."""

    script: Script
    repeat_seconds: float


class MakeWave(Protocol):
    """Gives another wave for each seed."""

    def __call__(self, seed: int) -> Wave: ...


def square(seed: int) -> Wave:
    """100 W and 400 W by turns, with the periods of SQUARE_SECONDS."""
    return square_of(SQUARE_SECONDS[seed % len(SQUARE_SECONDS)])


def square_of(period: float) -> Wave:
    half = period / 2
    points = [(0, 400), (half, 400), (half + STEP_SECONDS, 100), (period - STEP_SECONDS, 100)]
    return Wave([*points, (period, 400)], period)


def ramp(seed: int) -> Wave:
    """From 100 W to 600 W and back, with the periods of RAMP_SECONDS."""
    period = RAMP_SECONDS[seed % len(RAMP_SECONDS)]
    return Wave([(0, 100), (period / 2, 600), (period, 100)], period)


def decoding(seed: int) -> Wave:
    """Requests one after another: idling, a burst of prefill, decoding that ripples."""
    chance = random.Random(seed)
    script: Script = [(0, 90)]

    def hold(watts: float, seconds: float) -> None:
        at = script[-1][0]
        script.extend([(at + STEP_SECONDS, watts), (at + seconds, watts)])

    while script[-1][0] < ROUND_SECONDS - 1:
        hold(90, 0.05 + chance.expovariate(2))
        hold(chance.uniform(560, 680), chance.uniform(0.03, 0.4))
        for _ in range(round(min(160, 4 + chance.expovariate(1 / 40)))):
            hold(chance.uniform(280, 420), 0.05)
    return Wave(script, script[-1][0])


WAVES: dict[str, MakeWave] = {"square waves": square, "ramps": ramp, "decode-like": decoding}
