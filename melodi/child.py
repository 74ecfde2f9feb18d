"""What every process that works for another one of the same MELODI does alike, at both ends."""

import signal
import subprocess

from melodi.clock import NS_PER_SECOND, Clock

LONGEST_WAIT_SECONDS = 60.0
STEADY_NS = 60 * NS_PER_SECOND
"""A child that has lived so long is started anew as soon as the first one."""


def leave_signals_to_parent() -> None:
    """Whoever stops the daemon may stop all its processes: the child ends when it is told to."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def exit_code_of(child: "subprocess.Popen[bytes]", *, patience_seconds: float) -> int:
    """Wait for its end, and bring it about where it hangs; its exit code."""
    try:
        return child.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


class Restarts:
    """When a child that ended is started anew: each time after twice as long, up to a minute."""

    def __init__(self, clock: Clock, *, first_seconds: float) -> None:
        self._clock = clock
        self._first_seconds = self._next_seconds = first_seconds
        self._began_ns = clock.monotonic_ns()

    def begun(self) -> None:
        """One is being started."""
        self._began_ns = self._clock.monotonic_ns()

    def wait_seconds(self) -> float:
        """The last one has ended: how long to wait for the next."""
        if self._clock.monotonic_ns() - self._began_ns > STEADY_NS:
            self._next_seconds = self._first_seconds
        seconds = self._next_seconds
        self._next_seconds = min(2 * seconds, LONGEST_WAIT_SECONDS)
        return seconds
