"""Lets work in the background give way to the thread that passes traffic on."""

import threading
import time

STRETCH_SECONDS, REST_SECONDS = 0.0005, 0.002
LONG_STRETCH_SECONDS, SHORT_REST_SECONDS = 0.0025, 0.0001
"""Of a thread that is behind with its work."""

_worked = threading.local()


def give_way(*, behind: bool = False) -> None:
    """Rest for a moment where this thread last did a while ago; call it often.

    The interpreter takes 5 ms to pass from a thread that works to another one that wants to, and
    the event loop wants to for every piece of an answer. Whoever is `behind` rests less.
    """
    stretch = LONG_STRETCH_SECONDS if behind else STRETCH_SECONDS
    if time.monotonic() - getattr(_worked, "since", 0.0) >= stretch:
        time.sleep(SHORT_REST_SECONDS if behind else REST_SECONDS)
        _worked.since = time.monotonic()
