"""The backend's side of the gateway: one pool of connections that changes nothing it carries."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

from melodi.clock import Clock
from melodi.errors import BackendError
from melodi.gateway.connection import Answer, Connection, Stale
from melodi.gateway.headers import Headers
from melodi.inference.recording import unreachable
from melodi.inference.request import Backend
from melodi.inference.tls import trust

KEEPALIVE_SECONDS = 3
"""Shorter than uvicorn's 5 s, so that a connection is never used while the backend closes it."""
CONNECT_SECONDS = 30
MAX_PLAIN_BYTES = 1024 * 1024
"""Longer bodies are not written at once."""
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

Content = bytes | AsyncIterator[bytes] | None


class BackendAway(BackendError):
    """No connection to the backend could be made."""


class Upstream:
    """Opens and closes with the gateway.

    Bytes are parsed as they come and headers stay bytes: a client library that makes an object of
    each costs more than the gateway's own work (docs/decisions/0009).
    """

    def __init__(self, backend: Backend, clock: Clock) -> None:
        parts = urlsplit(backend.url)
        self._backend = backend
        self._clock = clock
        self._host, self._is_tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._prefix = parts.path.encode("ascii")
        self._named = b"host: %b\r\n" % parts.netloc.encode("ascii")
        self._tls: ssl.SSLContext | None = None
        self._idle: list[Connection] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Make the pool; needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._tls = trust(self._backend) if self._is_tls else None

    async def close(self) -> None:
        """Close every connection that serves no request; the others end with theirs."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._drop_idle()
        self._loop = None

    async def send(
        self,
        method: str,
        target: bytes,
        *,
        headers: Headers,
        content: Content,
        on_sent: Callable[[], None],
    ) -> Answer:
        """Send a request and give its answer once the head has come; the caller closes it.

        `on_sent` is called once the request's head has been written to the backend.

        Where the backend had closed a pooled connection, the request goes once more, unless its
        content was a stream. Raises BackendAway or BackendBroke, and what a stream raises.
        """
        head = self._head(method, target, headers, content)
        try:
            return await self._send_once(method, head, content, on_sent)
        except Stale:
            # Where one had been closed, the others have not fared better.
            if content is None or isinstance(content, bytes):
                self._drop_idle()
                return await self._send_once(method, head, content, on_sent)
            raise

    async def _send_once(
        self, method: str, head: bytes, content: Content, on_sent: Callable[[], None]
    ) -> Answer:
        connection = self._pooled() or await self._connected()
        answer = Answer(
            connection, self._backend, self._clock, has_body=method != "HEAD", release=self._release
        )
        try:
            if isinstance(content, bytes) and len(content) <= MAX_PLAIN_BYTES:
                connection.write(head + content)
            else:
                connection.write(head)
                if content is not None:
                    chunked = not isinstance(content, bytes) and not _has_length(head)
                    answer.upload(_pieces(content), chunked=chunked)
            on_sent()
            await answer.head()
        except BaseException:
            answer.close()
            raise
        return answer

    def _head(self, method: str, target: bytes, headers: Headers, content: Content) -> bytes:
        """The request's head; a body that was read whole goes with its length."""
        lines = [b"%b %b%b HTTP/1.1\r\n" % (method.encode(), self._prefix, target), self._named]
        length: bytes | None = None
        if isinstance(content, bytes):
            length = b"%d" % len(content)
        elif content is None and method in WITH_BODY:
            length = b"0"
        for name, value in headers:
            if name != b"content-length" or (length is None and content is not None):
                lines.append(b"%b: %b\r\n" % (name, value))
        if length is not None:
            lines.append(b"content-length: %b\r\n" % length)
        elif content is not None and not any(name == b"content-length" for name, _ in headers):
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _pooled(self) -> Connection | None:
        """The connection that was used last, if it is fresh and open."""
        fresh = self._running().time() - KEEPALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.idle_since > fresh:
                return connection
            connection.abort()
        return None

    async def _connected(self) -> Connection:
        loop = self._running()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    Connection, self._host, self._port, ssl=self._tls
                )
        except OSError as error:
            raise BackendAway(unreachable(self._backend, error)) from error
        return connection

    def _release(self, connection: Connection) -> None:
        if self._loop is None or not connection.is_open:
            connection.abort()
            return
        connection.used = True
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEEPALIVE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody has used for so long; come back while there is more."""
        loop = self._running()
        stale = loop.time() - KEEPALIVE_SECONDS
        while self._idle and self._idle[0].idle_since <= stale:
            self._idle.pop(0).abort()
        self._sweeper = loop.call_later(1, self._sweep) if self._idle else None

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().abort()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the gateway is not open: run it with its lifespan on")
        return self._loop


def _has_length(head: bytes) -> bool:
    return b"\r\ncontent-length: " in head


async def _pieces(content: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    async for piece in content:
        yield piece
