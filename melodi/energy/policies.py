"""How the active energy of a bin is shared by the requests of one model in it."""

from typing import Protocol

import numpy as np

from melodi.energy.attendance import Attendance
from melodi.energy.bins import Bin
from melodi.energy.columns import Vector
from melodi.energy.steps import StepCosts

PREFILL_WEIGHT = 0.1
"""Energy of a prefill token to that of a decoded one, where it was not fitted (kappa)."""
FEW = 8
"""In simulation tokens beat time from about this many requests in a bin on."""


class Policy(Protocol):
    """A named rule that gives everybody in a bin a weight: one row of prefills, one of decoding.

    `learn` takes the active joules of the bins that the group had to itself, in order, before
    they are weighed. `weigh` gives None where it knows too little; weights are never negative,
    and are joules if `in_joules`. Below `few` requests in a bin the policies after it are taken
    first, if they can weigh: its result still counts for the bounds.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def few(self) -> int: ...

    @property
    def in_joules(self) -> bool: ...

    def learn(self, bin_: Bin, group: Attendance, active_joules: float) -> None: ...

    def weigh(self, group: Attendance) -> Vector | None: ...


class ByTime:
    """By time in service; exact for one request at a time."""

    name, version, few, in_joules = "time", 1, 0, False

    def learn(self, bin_: Bin, group: Attendance, active_joules: float) -> None:
        """Nothing hangs on what was seen before."""

    def weigh(self, group: Attendance) -> Vector | None:
        return np.array((group.before_first, group.tau - group.before_first))


class ByTokens:
    """By tokens: 0.1 x prefill tokens that were not cached + decoded tokens."""

    name, version, in_joules = "tokens", 2, False

    def __init__(self, *, few: int = 0) -> None:
        self.few = few

    def learn(self, bin_: Bin, group: Attendance, active_joules: float) -> None:
        """The weight of a prefill token is fixed: fitting it alone loses to that."""

    def weigh(self, group: Attendance) -> Vector | None:
        tokens = group.tokens
        if tokens is None:
            return None
        return np.array((PREFILL_WEIGHT * tokens.prefill, tokens.decode))


class BySteps:
    """The fixed cost of each engine step to those in it, the rest by own work, as fitted."""

    name, version, few, in_joules = "steps", 2, 0, True

    def __init__(self) -> None:
        self._costs = StepCosts()

    def learn(self, bin_: Bin, group: Attendance, active_joules: float) -> None:
        if group.tokens is not None:
            self._costs.learn(bin_, group.tokens, active_joules)

    def weigh(self, group: Attendance) -> Vector | None:
        return None if group.tokens is None else self._costs.weigh(group.tokens)


def policies_for(name: str) -> tuple[Policy, ...]:
    """Fresh policies in order of preference, the last of which can always weigh.

    `auto` is steps, then tokens, then time. Raises ValueError with the known names.
    """
    if name == "auto":
        return BySteps(), ByTokens(few=FEW), ByTime()
    everything: tuple[Policy, ...] = (BySteps(), ByTokens(), ByTime())
    names = [policy.name for policy in everything]
    if name not in names:
        raise ValueError(f"unknown policy {name!r}: use auto, {', '.join(names)}")
    return everything[names.index(name) :]
