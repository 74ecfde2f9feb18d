"""The one place that knows how a raw energy counter wraps, resets and stands still."""

from enum import StrEnum
from math import inf

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


Step = int | GapReason | None
"""Microjoules gained since the reading before, 0 where it was not refreshed since; or why nobody
knows how many, and counting starts anew; None: there was no reading before."""


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
        # Watts are microjoules in 1000 ns.
        most_uj_per_ns = inf if max_power_watts is None else max_power_watts / 1_000
        self._range_uj = range_uj
        self._lasts_ns = range_uj / most_uj_per_ns if range_uj and most_uj_per_ns else inf
        self._implausible_uj_per_ns = _TOLERANCE * most_uj_per_ns
        self._last: tuple[int, int] | None = None

    def feed(self, at_ns: int, value_uj: int) -> Step:
        """Take the reading of `at_ns`; raises ValueError where time went back."""
        last = self._last
        if last is not None and at_ns < last[0]:
            raise ValueError(
                f"reading of {at_ns} ns after one of {last[0]} ns; feed readings in order of time"
            )
        self._last = (at_ns, value_uj)
        if last is None:
            return None
        elapsed_ns, gained_uj = at_ns - last[0], value_uj - last[1]
        if elapsed_ns >= self._lasts_ns:
            return GapReason.UNREAD_TOO_LONG
        fell = gained_uj < 0
        if fell and self._range_uj is not None:
            gained_uj += self._range_uj
        if gained_uj < 0:
            return GapReason.RESET
        # Twice the limit, because limits are moved while counters run; a second more, because a
        # counter shows at once all that it gathered since its last refresh.
        if gained_uj > self._implausible_uj_per_ns * (elapsed_ns + _UNSHOWN_NS):
            return GapReason.RESET if fell else GapReason.IMPLAUSIBLE
        return gained_uj
