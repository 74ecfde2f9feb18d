"""What can go wrong with a meter.

CollectorError
├── Unavailable    the meter does not exist here; run without it
├── NotPermitted   the meter exists and may not be read; the remedy says how to grant access
└── ReadFailed     one read failed; the next may work
"""


class CollectorError(Exception):
    """A meter cannot be used; `remedy` says what a person can do about it."""

    def __init__(self, reason: str, *, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class Unavailable(CollectorError):
    """The meter does not exist on this machine."""


class NotPermitted(CollectorError):
    """The meter exists, and this process may not read it."""


class ReadFailed(CollectorError):
    """One read failed; the next may work."""
