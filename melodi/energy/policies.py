"""How the active energy of a bin is shared by the requests of one model in it."""

from typing import Protocol

from melodi.energy.attendance import Attendance
from melodi.energy.bins import Bin
from melodi.energy.steps import StepCosts
from melodi.energy.work import Prices

PREFILL_WEIGHT = 0.1
"""Energy of a prefill token to that of a decoded one (kappa)."""
FEW = 8
"""In simulation tokens beat time from about this many requests in a bin on."""


class Policy(Protocol):
    """A named rule that gives everybody in a bin a weight: so much for each piece of work.

    `learn` takes the active joules of the bins that the group had to itself, in order, before
    they are weighed. `prices` gives None where it knows too little; prices are never negative,
    and weights are joules if `in_joules`. Below `few` requests in a bin the policies after it are
    taken first, if they can weigh: its result still counts for the bounds.
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

    def prices(self, group: Attendance) -> Prices | None: ...


class ByTime:
    """By time in service; exact for one request at a time."""

    name, version, few, in_joules = "time", 1, 0, False

    def learn(self, bin_: Bin, group: Attendance, active_joules: float) -> None:
        """Nothing hangs on what was seen before."""

    def prices(self, _: Attendance) -> Prices | None:
        return 1.0, 0.0, 0.0, 0.0, 0.0


class ByTokens:
    """By tokens: 0.1 x prefill tokens that were not cached + output tokens."""

    name, version, in_joules = "tokens", 3, False

    def __init__(self, *, few: int = 0) -> None:
        self.few = few

    def learn(self, bin_: Bin, group: Attendance, active_joules: float) -> None:
        """The weight of a prefill token is fixed: fitting it alone loses to that."""

    def prices(self, group: Attendance) -> Prices | None:
        return (0.0, PREFILL_WEIGHT, 0.0, 1.0, 0.0) if group.counted else None


class BySteps:
    """The fixed cost of each engine step to those in it, the rest by own work, as fitted."""

    name, version, few, in_joules = "steps", 3, 0, True

    def __init__(self) -> None:
        self._costs = StepCosts()

    def learn(self, bin_: Bin, group: Attendance, active_joules: float) -> None:
        if group.counted:
            self._costs.learn(bin_, group.done, steps=group.steps, active_joules=active_joules)

    def prices(self, group: Attendance) -> Prices | None:
        return self._costs.prices(group.done, steps=group.steps) if group.counted else None


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
