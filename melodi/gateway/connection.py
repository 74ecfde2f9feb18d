"""One connection to the backend: a request goes out, and its answer comes no faster than taken."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import httptools

from melodi.clock import Clock
from melodi.errors import BackendError, CutShort
from melodi.gateway.headers import Headers
from melodi.inference.recording import broken
from melodi.inference.request import Backend

MAX_HEAD_BYTES = 1024 * 1024
MOST_UNTAKEN_BYTES = 128 * 1024
"""Of an answer's body; beyond, the connection is not read until somebody takes them."""
PIECE_BYTES = 256 * 1024
"""Larger bodies go in pieces, so that one write does not hold up the others."""


class BackendBroke(BackendError, CutShort):
    """The backend closed the connection before its answer, or amid it."""


class Stale(BackendBroke):
    """A pooled connection turned out to be closed; not one byte came back on it."""


class Connection(asyncio.Protocol):
    """A connection that serves one request after the other; it knows the one that is under way."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.used = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        self._transport = None
        if self.answer is not None:
            self.answer.lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.answer is None:
            # Nobody asked: what it belongs to cannot be known.
            self.abort()
        else:
            self.answer.feed(data)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until more may be written."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close it now, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()


class Answer:
    """What the backend answers to one request, as it comes; whoever got it closes it."""

    def __init__(
        self,
        connection: Connection,
        backend: Backend,
        clock: Clock,
        *,
        has_body: bool,
        release: Callable[[Connection], None],
    ) -> None:
        self.status = 0
        self.headers: Headers = []
        """Names in lower case."""
        self.at_ns = clock.monotonic_ns()
        """When the last bytes came."""
        self._clock = clock
        self._connection = connection
        self._backend = backend
        self._has_body = has_body
        self._release = release
        self._parser = httptools.HttpResponseParser(self)
        self._reused = connection.used
        self._upload: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._untaken_bytes = 0
        self._head_bytes = 0
        self._paused = False
        self._begun = False
        self._whole = False
        self._stays = False
        self._error: BaseException | None = None
        connection.answer = self

    # for whoever takes the answer

    @property
    def is_over(self) -> bool:
        """Whether the body is whole and all of it has been taken."""
        return self._whole and not self._pieces and self._error is None

    async def head(self) -> None:
        """Wait for status and headers; raises Stale or BackendBroke where they do not come."""
        while not self._begun and self._error is None:
            await self._wait()
        if not self._begun and self._error is not None:
            raise self._error

    async def read(self) -> bytes:
        """The bytes of the body that have come meanwhile; none once it is whole.

        Raises BackendBroke where it is cut short.
        """
        while not (self._pieces or self._whole or self._error):
            await self._wait()
        if self._pieces:
            return self._take()
        if self._error is not None:
            raise self._error
        return b""

    async def pieces(self) -> AsyncIterator[bytes]:
        """What `read` gives, until the body is whole."""
        while piece := await self.read():
            yield piece

    def close(self) -> None:
        """Give the connection back where it can serve again, or close it."""
        uploaded = self._upload is None or self._upload.done()
        if self._upload is not None:
            self._upload.cancel()
        self._connection.answer = None
        # It holds our methods: without it nothing is left for the garbage collector to find.
        del self._parser
        if uploaded and self._whole and self._error is None and self._stays:
            self._release(self._connection)
        else:
            self._connection.abort()

    def upload(self, content: AsyncIterator[bytes], *, chunked: bool) -> None:
        """Send a request's body as it comes, while the answer may come already."""
        self._upload = asyncio.create_task(self._send(content, chunked=chunked))
        self._upload.add_done_callback(self._uploaded)

    # for the connection

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        if self._error is not None:
            # After what could not be understood nothing can be.
            return
        self.at_ns = self._clock.monotonic_ns()
        if not self._begun:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if not self._begun and self._head_bytes > MAX_HEAD_BYTES:
                raise httptools.HttpParserError("a head without end")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BackendBroke(broken(self._backend, error)))
        if self._untaken_bytes > MOST_UNTAKEN_BYTES and not self._paused:
            self._paused = True
            self._connection.pause_reading()
        self._wake()

    def lost(self, error: Exception | None) -> None:
        """The connection is gone; a body without a length of its own ends so."""
        self.at_ns = self._clock.monotonic_ns()
        if self._begun and error is None and not self._is_framed():
            self._whole = True
        if not self._whole:
            said_nothing = self._head_bytes == 0
            kind = Stale if self._reused and said_nothing else BackendBroke
            self._fail(kind(broken(self._backend, error or ConnectionResetError())))
        self._wake()

    # for the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            # An interim answer; the one that counts follows.
            self.headers = []
            return
        self._begun = True
        self._whole = not self._has_body
        # The parser knows only now; once the message is complete it has forgotten its length.
        self._stays = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if self._has_body:
            self._pieces.append(data)
            self._untaken_bytes += len(data)

    def on_message_complete(self) -> None:
        self._whole = self._begun

    def on_message_begin(self) -> None:
        if self._begun:
            # More than was asked for: what it belongs to cannot be known.
            self._fail(BackendBroke(broken(self._backend, httptools.HttpParserError())))

    def _is_framed(self) -> bool:
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    def _take(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._untaken_bytes = 0
        if self._paused:
            self._paused = False
            self._connection.resume_reading()
        return data

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error

    async def _send(self, content: AsyncIterator[bytes], *, chunked: bool) -> None:
        async for piece in content:
            for start in range(0, len(piece), PIECE_BYTES):
                part = piece[start : start + PIECE_BYTES]
                if not self._connection.is_open:
                    return
                self._connection.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                await self._connection.drain()
        if chunked:
            self._connection.write(b"0\r\n\r\n")

    def _uploaded(self, upload: asyncio.Task[None]) -> None:
        if not upload.cancelled() and (error := upload.exception()) is not None:
            self._fail(error)
            self._wake()
