"""The one place that knows how a raw energy counter wraps, resets and stands still."""

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_MAX_POWER_WATTS = 1_000.0
"""Assumed of a wrapping counter whose domain names no limit.

Only RAPL counters wrap, and the largest sockets are specified at 500 to 600 W, memory far below.
Too high a value calls some stalls unknown that were not; too low a value would lose a whole range.
"""

_TOLERANCE = 2.0
_UNSHOWN_NS = 1_000_000_000


class GapReason(StrEnum):
    """Why the energy between two readings is unknown."""

    RESET = "counter_reset"
    UNREAD_TOO_LONG = "unread_too_long"
    IMPLAUSIBLE = "implausible_step"


@dataclass(frozen=True, slots=True)
class First:
    """The first reading: there is nothing yet to subtract it from."""


@dataclass(frozen=True, slots=True)
class Gained:
    """What the counter gained since `since_ns`; 0 says it has not been refreshed yet."""

    since_ns: int
    energy_uj: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Energy was used since `since_ns`, and nobody knows how much; counting starts anew."""

    since_ns: int
    reason: GapReason


Step = First | Gained | Gap


class Counter:
    """Turns the raw values of one cumulative counter into what it gained from each to the next.

    `range_uj` is what the counter wraps after; None: it never wraps, so a fall is a new epoch.
    A fall of a counter with a range adds that range once, and only where no second wrap can hide:
    the time since the last reading is shorter than the range lasts at `max_power_watts`.
    A step that would need far more than `max_power_watts` is a gap, whichever way it went.
    """

    def __init__(
        self, *, range_uj: int | None = None, max_power_watts: float | None = None
    ) -> None:
        if range_uj is not None and max_power_watts is None:
            max_power_watts = DEFAULT_MAX_POWER_WATTS
        self._range_uj = range_uj
        self._max_power_watts = max_power_watts
        self._last: tuple[int, int] | None = None

    def feed(self, at_ns: int, value_uj: int) -> Step:
        """Take the reading of `at_ns`; raises ValueError where time went back."""
        last = self._last
        self._last = (at_ns, value_uj)
        if last is None:
            return First()
        since_ns, last_uj = last
        if at_ns < since_ns:
            self._last = last
            raise ValueError(
                f"reading of {at_ns} ns after one of {since_ns} ns; feed readings in order of time"
            )
        return self._step(since_ns, at_ns - since_ns, value_uj - last_uj)

    def _step(self, since_ns: int, elapsed_ns: int, gained_uj: int) -> Step:
        if self._can_wrap_twice(elapsed_ns):
            return Gap(since_ns, GapReason.UNREAD_TOO_LONG)
        fell = gained_uj < 0
        if fell and self._range_uj is not None:
            gained_uj += self._range_uj
        if gained_uj < 0:
            return Gap(since_ns, GapReason.RESET)
        if self._is_implausible(elapsed_ns, gained_uj):
            return Gap(since_ns, GapReason.RESET if fell else GapReason.IMPLAUSIBLE)
        return Gained(since_ns, gained_uj)

    def _can_wrap_twice(self, elapsed_ns: int) -> bool:
        if self._range_uj is None or self._max_power_watts is None:
            return False
        return elapsed_ns * self._max_power_watts >= self._range_uj * 1_000

    def _is_implausible(self, elapsed_ns: int, gained_uj: int) -> bool:
        # Twice the limit, because limits are moved while counters run; a second more, because a
        # counter shows at once all that it gathered since its last refresh.
        if self._max_power_watts is None:
            return False
        bound_uj = _TOLERANCE * self._max_power_watts * (elapsed_ns + _UNSHOWN_NS) / 1_000
        return gained_uj > bound_uj
