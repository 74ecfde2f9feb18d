"""A backend whose every byte and pause is scripted, and an ASGI server in a thread."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from waiting import PATIENCE_SECONDS

from melodi.inference.timeline import RequestTimeline

CUT = "cut"
"""A step: drop the connection here, without another byte."""

Step = bytes | str | asyncio.Event


@dataclass(frozen=True)
class SeenRequest:
    """One request as it came over the wire."""

    head: bytes
    body: bytes
    connection: int

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        lines = self.head.split(b"\r\n")[1:]
        return [(name, value.strip()) for name, _, value in (x.partition(b":") for x in lines if x)]


@dataclass
class ScriptedServer:
    """Answers each request with the steps that `answer` gives for it."""

    answer: Callable[[SeenRequest], Sequence[Step]]
    requests: list[SeenRequest] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    closed: asyncio.Condition = field(default_factory=asyncio.Condition)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        # So that `drain` waits for all of it: a step that cuts cuts nothing that came before.
        writer.transport.set_write_buffer_limits(high=0)
        talk = asyncio.ensure_future(self._talk(reader, writer, number))
        try:
            await talk
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            async with self.closed:
                self.open_connections -= 1
                self.closed.notify_all()

    async def all_closed(self) -> None:
        """Wait until no connection is open."""
        async with self.closed:
            await self.closed.wait_for(lambda: self.open_connections == 0)

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        while True:
            request = await _read(reader, number)
            self.requests.append(request)
            self.arrived.set()
            for step in self.answer(request):
                if step is CUT:
                    return
                if isinstance(step, asyncio.Event):
                    await _wait_or_lose(step, reader)
                else:
                    writer.write(step)
                    await writer.drain()


async def _wait_or_lose(event: asyncio.Event, reader: asyncio.StreamReader) -> None:
    """Wait for the event, or raise when the peer closes first."""
    wait = asyncio.ensure_future(event.wait())
    peer = asyncio.ensure_future(reader.read(1))
    await asyncio.wait((wait, peer), return_when=asyncio.FIRST_COMPLETED)
    lost = peer.done()
    wait.cancel()
    peer.cancel()
    await asyncio.gather(wait, peer, return_exceptions=True)
    if lost:
        raise ConnectionError("the peer left")


async def _read(reader: asyncio.StreamReader, number: int) -> SeenRequest:
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    body = b""
    if b"\r\ncontent-length:" in lowered:
        size = int(lowered.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(size)
    elif b"\r\ntransfer-encoding: chunked" in lowered:
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return SeenRequest(head, body, number)


@asynccontextmanager
async def scripted(
    answer: Callable[[SeenRequest], Sequence[Step]] | Sequence[Step],
) -> AsyncIterator[ScriptedServer]:
    """A scripted server on a free port of 127.0.0.1, in this event loop."""
    make = answer if callable(answer) else lambda _: answer
    script = ScriptedServer(make)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0, limit=2**20)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()


def response(
    body: bytes,
    content_type: str = "application/json",
    *,
    status: str = "200 OK",
    extra: bytes = b"",
) -> bytes:
    """A whole response with its length."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n".encode()
        + extra
        + b"\r\n"
        + body
    )


def stream_head(content_type: str, *, extra: bytes = b"") -> bytes:
    """The head of a chunked response."""
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
        "Transfer-Encoding: chunked\r\n".encode()
        + extra
        + b"\r\n"
    )


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; an empty one ends it."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """An ASGI app under uvicorn in a thread; gives its url, ends with every connection closed."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        log_config=None,
        lifespan="on",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        **options,
    )
    server = uvicorn.Server(config)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            server.run(sockets=[listener])
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while not server.started:
            thread.join(0.005)
            if not thread.is_alive():
                raise RuntimeError("the server did not start") from (failures or [None])[0]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class BrokenRecorder:
    """Can record nothing."""

    def begin(self, timeline: RequestTimeline) -> None:
        raise OSError("disk full")

    def end(self, timeline: RequestTimeline) -> None:
        raise OSError("disk full")


class MemoryRecorder:
    """Keeps timelines, and waits for their ends."""

    def __init__(self) -> None:
        self.begun: list[RequestTimeline] = []
        self.ended: list[RequestTimeline] = []
        self._changed = threading.Condition()

    def begin(self, timeline: RequestTimeline) -> None:
        self.begun.append(timeline)

    def end(self, timeline: RequestTimeline) -> None:
        with self._changed:
            self.ended.append(timeline)
            self._changed.notify_all()

    async def one(self) -> RequestTimeline:
        """The one timeline, once it has ended."""
        await self.all(1)
        return self.ended[0]

    async def all(self, count: int) -> list[RequestTimeline]:
        """The timelines, once `count` of them have ended; no more may have begun."""
        found = await asyncio.to_thread(self._wait, count)
        assert found, f"{len(self.ended)} of {count} timelines ended"
        assert len(self.begun) == len(self.ended) == count
        return self.ended

    def _wait(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.ended) >= count, PATIENCE_SECONDS)
