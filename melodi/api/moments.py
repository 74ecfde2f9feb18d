"""Moments as people write them in a query: RFC 3339, or how long ago."""

import re
from datetime import datetime, timedelta

from melodi.store.queries import BadQuery

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_AGO = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
# A plus sign that was not escaped in the query arrives as a space.
_LOST_PLUS = re.compile(r" (\d\d:?\d\d)$")


def parse_moment(text: str, *, now: datetime) -> datetime:
    """`2026-11-21T08:00:00Z`, or `90s`, `1h`, `7d` before `now`; BadQuery for anything else."""
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
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
    match = _AGO.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not (seconds >= 1 and seconds.is_integer()):
        raise BadQuery(f"{text!r} is no step; write whole seconds or more: 60s, 5m, 1h, 1d")
    return int(seconds)
