"""The one clock that everything is given: real in production, virtual in tests."""

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

NS_PER_SECOND = 1_000_000_000
NS_PER_MINUTE = 60 * NS_PER_SECOND
SECONDS_PER_MINUTE = 60
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Monotonic nanoseconds for arithmetic; wall time, once per record, for people."""

    def monotonic_ns(self) -> int: ...

    def boottime_ns(self) -> int:
        """Monotonic nanoseconds that count on while the machine is suspended."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 in UTC."""
        ...


class SystemClock:
    """The clock of this machine: asked often, so with nothing in between."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    boottime_ns = staticmethod(partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME))
    wall_ns = staticmethod(time.time_ns)


class VirtualClock:
    """A clock that moves only when told to."""

    def __init__(self, *, monotonic_ns: int = 0, wall_ns: int = 1_767_225_600 * NS_PER_SECOND):
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self._asleep_ns = 0

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def boottime_ns(self) -> int:
        return self._monotonic_ns + self._asleep_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def advance(self, ns: int) -> None:
        """Move both times forward by `ns` nanoseconds."""
        if ns < 0:
            raise ValueError("a clock does not go back; advance it by 0 or more")
        self._monotonic_ns += ns
        self._wall_ns += ns

    def suspend(self, ns: int) -> None:
        """Sleep for `ns` nanoseconds, as a suspended machine does: monotonic time stands still."""
        self._asleep_ns += ns
        self._wall_ns += ns

    def step_wall(self, ns: int) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does."""
        self._wall_ns += ns


def to_datetime(wall_ns: int) -> datetime:
    """Wall nanoseconds as an aware UTC datetime, to the microsecond."""
    return EPOCH + timedelta(microseconds=wall_ns // 1_000)


def minute_of(moment: datetime) -> int:
    """The minute that a moment is in: how many whole ones since 1970 in UTC."""
    return int(moment.timestamp() // SECONDS_PER_MINUTE)


def begin_of_minute(minute: int) -> datetime:
    """The moment at which a minute since 1970 in UTC begins."""
    return datetime.fromtimestamp(minute * SECONDS_PER_MINUTE, tz=UTC)
