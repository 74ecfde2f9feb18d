"""Moments as people write them in a query: RFC 3339, or how long ago."""

import re
from datetime import datetime, timedelta

from melodi.clock import NS_PER_SECOND
from melodi.durations import parse_duration
from melodi.store.queries import BadQuery

# A plus sign that was not escaped in the query arrives as a space.
_LOST_PLUS = re.compile(r" (\d\d:?\d\d)$")


def parse_moment(text: str, *, now: datetime) -> datetime:
    """`2026-11-21T08:00:00Z`, or `90s`, `1h`, `7d` before `now`; BadQuery for anything else."""
    try:
        if (ago_ns := _duration(text)) is not None:
            return now - timedelta(microseconds=ago_ns / 1_000)
        moment = datetime.fromisoformat(_LOST_PLUS.sub(r"+\1", text))
    except (ValueError, OverflowError) as error:
        raise BadQuery(
            f"{text!r} is no moment; write 2026-11-21T08:00:00Z, or 1h or 7d for how long ago"
        ) from error
    if moment.tzinfo is None:
        raise BadQuery(f"{text!r} has no time zone; add Z for UTC, or an offset such as +01:00")
    return moment


def parse_step(text: str) -> int:
    """Seconds of `60s`, `5m`, `1h` or `1d`; BadQuery for anything else, or less than a second."""
    ns = _duration(text) or 0
    if ns < NS_PER_SECOND or ns % NS_PER_SECOND:
        raise BadQuery(f"{text!r} is no step; write whole seconds or more: 60s, 5m, 1h, 1d")
    return ns // NS_PER_SECOND


def _duration(text: str) -> int | None:
    try:
        return parse_duration(text)
    except ValueError:
        return None
