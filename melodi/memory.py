"""Gives memory that is free back to the system."""

import ctypes
from collections.abc import Callable


def _trim() -> Callable[[int], int] | None:
    """The C library's own way, where it has one: glibc has, musl and others have not."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


_TRIM = _trim()


def give_back() -> None:
    """What a burst of requests took is free afterwards, and would stay with this process.

    Takes about a millisecond, in which the interpreter is free.
    """
    if _TRIM is not None:
        _TRIM(0)
