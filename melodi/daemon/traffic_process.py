"""The process in which traffic is passed on: how it is started, what it says, how it ends."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from melodi.child import exit_code_of
from melodi.gateway.apart import Asked, Passed, Ready, Stop, Task, Told
from melodi.inference.request import Backend
from melodi.line import Line
from melodi.serving import GRACE_SECONDS

START_SECONDS = 30.0
STOP_SECONDS = GRACE_SECONDS + 5.0


@dataclass(frozen=True, slots=True)
class Front:
    """Where the clients of a backend come."""

    backend: Backend
    listener: socket.socket

    @property
    def fd(self) -> int:
        return self.listener.fileno()


class TrafficProcess:
    """A child that passes traffic on as it is told; it ends when its parent does."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self._child = child
        self._line: Line | None = None
        self._ready = asyncio.Event()
        self._silent = asyncio.Event()
        self._is_serving = False

    @classmethod
    async def begun(cls, task: Task, hear: Callable[[Passed | Asked], None]) -> "TrafficProcess":
        """A process with this task, whose words are heard; OSError where none can be started."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = cls(await asyncio.to_thread(_started, theirs, task))
        process._line = await Line.on(ours, lambda said: process._take(said, hear), process._end)
        process.send(task)
        return process

    @property
    def pid(self) -> int:
        return self._child.pid

    def send(self, message: Task | Told | Stop) -> None:
        """Tell it something; nothing happens where it has ended."""
        if self._line is not None:
            self._line.send(message)

    async def is_ready(self) -> bool:
        """Wait until its gateways answer; False where they never will."""
        try:
            await asyncio.wait_for(self._ready.wait(), START_SECONDS)
        except TimeoutError:
            self._child.kill()
        return self._is_serving

    def ask_to_stop(self) -> None:
        """Let it end, at the latest when its streams have had their grace."""
        self.send(Stop())
        asyncio.get_running_loop().call_later(STOP_SECONDS, self._kill)

    async def ended(self) -> int:
        """Wait until it has said all and is gone; its exit code."""
        await self._silent.wait()
        return await asyncio.to_thread(exit_code_of, self._child, patience_seconds=STOP_SECONDS)

    def _kill(self) -> None:
        """Let it not hang for ever."""
        if self._child.poll() is None:
            self._child.kill()

    def _take(
        self, message: Ready | Passed | Asked, hear: Callable[[Passed | Asked], None]
    ) -> None:
        if isinstance(message, Ready):
            self._is_serving = True
            self._ready.set()
        else:
            hear(message)

    def _end(self) -> None:
        self._ready.set()
        self._silent.set()


def _started(end: socket.socket, task: Task) -> "subprocess.Popen[bytes]":
    # Of its own is the group of processes alone, so that Ctrl-C passes it by: where Linux groups
    # tasks by session, niceness counts within a session only, and exports are to give way to it.
    # -P: a folder that the daemon was started in must not bring its own modules.
    return subprocess.Popen(  # noqa: S603  our own interpreter and module
        [sys.executable, "-P", "-m", "melodi.gateway.child", str(end.fileno())],
        pass_fds=[end.fileno(), *(fd for _, fd in task.gateways)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        process_group=0,
    )
