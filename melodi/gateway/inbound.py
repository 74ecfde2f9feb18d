"""The client's side of one request: its body, and whether it is still there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


WATCH_AFTER_SECONDS = 0.05
"""Most answers that come sooner need nobody to watch their client; a watcher costs a task."""


class ClientLeft(Exception):
    """The client went away before its request was done."""


class Inbound:
    """Takes a client's body, and then watches for it to leave.

    Only one task may receive at a time: the body's reader first, then the watcher.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._whole = asyncio.Event()
        self._start: list[bytes] = []
        self.gone = False
        """The client has left."""

    async def read(self, limit_bytes: int) -> bytes | None:
        """The whole body; None where it is longer than `limit_bytes`, and then `chunks` has it.

        Raises ClientLeft.
        """
        size_bytes = 0
        while not self._whole.is_set():
            chunk = await self._next()
            self._start.append(chunk)
            size_bytes += len(chunk)
            if size_bytes > limit_bytes:
                return None
        start, self._start = self._start, []
        return b"".join(start)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, once; raises ClientLeft."""
        for chunk in self._start:
            yield chunk
        self._start = []
        while not self._whole.is_set():
            if chunk := await self._next():
                yield chunk

    def skip(self) -> None:
        """There is no body to take."""
        self._whole.set()

    def watched(self) -> "Watched":
        """A context whose body ends with ClientLeft where the client leaves meanwhile."""
        return Watched(self)

    async def left(self) -> None:
        """Wait until the client leaves."""
        await self._whole.wait()
        while not self.gone:
            message = await self._receive()
            self.gone = message["type"] == "http.disconnect"

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            self._whole.set()
            raise ClientLeft
        if not message.get("more_body", False):
            self._whole.set()
        body: bytes = message.get("body", b"")
        return body


class Watched:
    """Cancels the task inside it once the client has left, as asyncio.timeout does for time."""

    def __init__(self, inbound: Inbound) -> None:
        self._inbound = inbound
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, self._begin)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task, watcher, timer = self._task, self._watcher, self._timer
        # They hold this: without them nothing is left for the garbage collector to find.
        self._task = self._watcher = self._timer = None
        if timer is not None:
            timer.cancel()
        if watcher is not None:
            watcher.cancel()
        was_cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        # Somebody else may have cancelled it too.
        if was_cancelled and self._inbound.gone and task and task.uncancel() <= 0:
            raise ClientLeft

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        await self._inbound.left()
        if self._task is not None:
            self._task.cancel()
