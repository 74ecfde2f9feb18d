"""The process in which meters are read: how it is started, what it says, how it ends."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from collectors.registry import Probe
from melodi.child import exit_code_of
from melodi.sampling.plan import Plan
from melodi.sampling.reader import Pass

START_SECONDS = 30
STOP_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Refused:
    """The plan names a meter that does not exist."""

    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """Which meters it has open, and why not the others."""

    probes: tuple[Probe, ...]


@dataclass(frozen=True, slots=True)
class Passes:
    """What its readers read since it last said so, in order for each."""

    passes: tuple[Pass, ...]
    cpu_seconds: float
    """CPU time it has used since it began."""


Message = Refused | Told | Passes


def told(probes: Sequence[Probe]) -> Told:
    """The probes without what cannot leave its process."""
    return Told(tuple(replace(one, collector=None, elsewhere=one.domains) for one in probes))


class MeterProcess:
    """A child that opens the meters of a plan; it ends when its parent does.

    A new interpreter, not a fork, because NVML does not survive one. Raises OSError where none
    can be started.
    """

    def __init__(self, plan: Plan) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: a folder that the daemon was started in must not bring its own modules.
            self._child = subprocess.Popen(  # noqa: S603  our own interpreter and module
                [sys.executable, "-P", "-m", "melodi.sampling.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        with contextlib.suppress(OSError):  # it has ended already, as `receive` will tell
            self._connection.send(plan)

    @property
    def pid(self) -> int:
        return self._child.pid

    def receive(self, seconds: float | None = None) -> Message | None:
        """What it says next, None if nothing in so many seconds; EOFError once it has ended."""
        try:
            if seconds is not None and not self._connection.poll(seconds):
                return None
            message: Message = self._connection.recv()
        except OSError as error:
            raise EOFError from error
        return message

    def ask_to_stop(self) -> None:
        """Let it close its meters and end."""
        with contextlib.suppress(OSError):
            self._connection.send(None)

    def close(self) -> int:
        """Wait for its end, and bring it about where it hangs; its exit code."""
        return exit_code_of(self._child, patience_seconds=STOP_SECONDS)

    def let_go(self) -> None:
        """Nobody listens to it any more."""
        self._connection.close()
