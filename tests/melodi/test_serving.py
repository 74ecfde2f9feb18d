"""Servers of one process stop together."""

import asyncio
import socket
import time
from typing import Any

import pytest

from melodi.serving import bind, serving

GRACE_SECONDS = 3


class Slow:
    """An app whose answer never ends; it notes when it was told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.cancelled = False
        self.closed_at: float | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.closed_at = time.monotonic()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Nagle's algorithm is off on what asyncio's own loop serves; it would hold back each body."""
    served: list[int] = []

    class Noting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            taken = transport.get_extra_info("socket")
            served.append(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    with bind("127.0.0.1:0") as listener:
        server = await asyncio.get_running_loop().create_server(Noting, sock=listener.dup())
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.read() == b""
        writer.close()
        server.close()
    assert served == [1]


async def test_all_servers_share_one_grace_time(caplog: pytest.LogCaptureFixture) -> None:
    """None waits for another, which would take that time once for each."""
    apps = [Slow() for _ in range(3)]
    listeners = [bind("127.0.0.1:0") for _ in apps]
    writers = []
    async with serving(zip(apps, listeners, strict=True), grace_seconds=GRACE_SECONDS):
        for app, listener in zip(apps, listeners, strict=True):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            writers.append(writer)
            await app.asked.wait()
        began = time.monotonic()
    took = time.monotonic() - began
    await asyncio.sleep(0)
    for writer, listener in zip(writers, listeners, strict=True):
        writer.close()
        listener.close()
    assert all(app.cancelled for app in apps)
    assert GRACE_SECONDS <= took < len(apps) * GRACE_SECONDS
    closed = [app.closed_at for app in apps if app.closed_at is not None]
    assert len(closed) == len(apps)
    assert max(closed) - min(closed) < GRACE_SECONDS
    assert len([one for one in caplog.records if "graceful" in one.message]) == len(apps)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers at once."""
    if scope["type"] == "lifespan":
        for word in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{word}.complete"})
        return
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hi"})


@pytest.mark.parametrize("piece", [b"b" * 60_000, b"X-Y: " + b"b" * 60_000 + b"\r\n"])
async def test_a_head_that_does_not_end_is_cut_off(piece: bytes) -> None:
    """One field without an end, or fields without an end: neither fills the memory."""
    listener = bind("127.0.0.1:0")
    async with serving([(hello, listener)]):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nX-Z: ")
        answer = asyncio.ensure_future(reader.read(-1))
        sent = 0
        while not answer.done() and sent < 64 * 1024 * 1024:
            writer.write(piece)
            sent += len(piece)
            try:
                await writer.drain()
            except ConnectionError:
                break
        said = (await asyncio.gather(answer, return_exceptions=True))[0]
        writer.close()
    listener.close()
    assert sent < 16 * 1024 * 1024
    # A client that goes on writing may lose the answer, never the end of the connection.
    assert isinstance(said, ConnectionError) or said.startswith(b"HTTP/1.1 400")


async def test_long_heads_pass_one_after_the_other() -> None:
    """The bound is of each head, not of a connection."""
    listener = bind("127.0.0.1:0")
    request = b"GET / HTTP/1.1\r\nHost: h\r\nX-Y: %s\r\n\r\n" % (b"b" * 60_000)
    async with serving([(hello, listener)]):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        for _ in range(30):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\nhi")
            assert head.startswith(b"HTTP/1.1 200")
        writer.close()
    listener.close()
