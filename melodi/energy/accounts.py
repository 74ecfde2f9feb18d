"""The accounts of the ledger: where each joule of a domain went, by minute."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace


@dataclass(slots=True, kw_only=True)
class MinuteAccounts:
    """What is to be added to the books of one domain and one minute.

    All joules are of closed bins; a bin belongs whole to the minute in which it ends.
    `measured` comes from counter readings alone, everything else from attribution, so that
    measured - (active + idle_share + load + idle + foreign + unattributed) can fail to be 0.
    """

    domain: str
    minute: int
    """Minutes since 1970 in UTC."""
    measured_joules: float = 0.0
    active_joules: float = 0.0
    idle_share_joules: float = 0.0
    load_joules: float = 0.0
    idle_joules: float = 0.0
    foreign_joules: float = 0.0
    unattributed_joules: float = 0.0
    tail_joules: float = 0.0
    """The part of unattributed within 5 s after the last request; inside it, not beside it."""
    unmeasured_seconds: float = 0.0
    """Time that nobody measured: seconds, because its joules are unknown."""

    @property
    def residual_joules(self) -> float:
        """Measured joules that no account holds."""
        return self.measured_joules - (
            self.active_joules
            + self.idle_share_joules
            + self.load_joules
            + self.idle_joules
            + self.foreign_joules
            + self.unattributed_joules
        )


class MinuteSums:
    """What the minutes gained since it was last taken, so that few writes carry many bins."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], MinuteAccounts] = {}

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, minutes: Iterable[MinuteAccounts]) -> None:
        """Add to each domain's minute."""
        for minute in minutes:
            key = (minute.domain, minute.minute)
            if key not in self._sums:
                self._sums[key] = replace(minute)
                continue
            total = self._sums[key]
            for name in AMOUNTS:
                setattr(total, name, getattr(total, name) + getattr(minute, name))

    def take(self) -> tuple[MinuteAccounts, ...]:
        """All of it; nothing is left."""
        taken, self._sums = tuple(self._sums.values()), {}
        return taken


AMOUNTS = tuple(one.name for one in fields(MinuteAccounts) if one.name not in ("domain", "minute"))
"""The accounts that add up over time."""
