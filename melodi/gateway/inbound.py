"""The client's side of one request: its body, and whether it is still there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
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
        async for chunk in self._rest():
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
        async for chunk in self._rest():
            yield chunk

    def skip(self) -> None:
        """There is no body to take."""
        self._whole.set()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Ends its body where the client leaves meanwhile, and raises ClientLeft then."""
        task = asyncio.current_task()
        assert task is not None
        watchers: list[asyncio.Task[None]] = []

        def begin() -> None:
            watchers.append(loop.create_task(self._watch(task)))

        loop = asyncio.get_running_loop()
        timer = loop.call_later(WATCH_AFTER_SECONDS, begin)
        try:
            yield
        except asyncio.CancelledError:
            # As asyncio.timeout does: only the watcher's own cancelling is turned into an error.
            if self.gone and task.uncancel() <= 0:
                raise ClientLeft from None
            raise
        finally:
            timer.cancel()
            for watcher in watchers:
                watcher.cancel()

    async def _watch(self, task: "asyncio.Task[None]") -> None:
        """Wait until the client leaves, and then cancel `task`."""
        await self._whole.wait()
        while not self.gone:
            message = await self._receive()
            self.gone = message["type"] == "http.disconnect"
        task.cancel()

    async def _rest(self) -> AsyncIterator[bytes]:
        while not self._whole.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                self._whole.set()
                raise ClientLeft
            if not message.get("more_body", False):
                self._whole.set()
            if message.get("body"):
                yield message["body"]
