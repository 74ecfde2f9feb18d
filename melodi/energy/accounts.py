"""The accounts of the ledger: where each joule of a domain went, by minute."""

from dataclasses import dataclass


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
