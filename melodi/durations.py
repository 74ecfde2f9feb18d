"""Durations as people write them: `50ms`, `3s`, `10m`, `2h`, `7d`, `2w`."""

import re

UNITS_NS = {
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)


def parse_duration(text: object) -> int:
    """Nanoseconds of a written duration; raises ValueError for anything else."""
    match = _WRITTEN.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write one such as 50ms, 3s, 10m, 2h or 7d")
    return round(float(match[1]) * UNITS_NS[match[2]])


def format_duration(ns: int) -> str:
    """The shortest way to write a duration that `parse_duration` reads back."""
    for unit in ("d", "h", "m", "s"):
        if ns % UNITS_NS[unit] == 0 and ns >= UNITS_NS[unit]:
            return f"{ns // UNITS_NS[unit]}{unit}"
    return f"{ns / UNITS_NS['ms']:g}ms"
