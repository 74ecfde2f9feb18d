"""The backend's side of the gateway: one pool of connections that changes nothing it carries."""

from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from melodi.errors import BackendError, CutShort
from melodi.gateway.headers import Headers
from melodi.inference.recording import broken, unreachable
from melodi.inference.request import Backend
from melodi.inference.tls import trust

KEEPALIVE_SECONDS = 3
"""Shorter than uvicorn's 5 s, so that a connection is never used while the backend closes it."""
CONNECT_SECONDS = 30
MAX_HEADER_BYTES = 64 * 1024
MAX_PLAIN_BYTES = 1024 * 1024
PIECE_BYTES = 256 * 1024
"""Larger bodies go in pieces, so that one write does not hold up the others."""
ADDED_BY_AIOHTTP = frozenset({"Accept", "Accept-Encoding", "User-Agent", "Content-Type"})

Content = bytes | AsyncIterator[bytes] | None


class BackendAway(BackendError):
    """No connection to the backend could be made."""


class BackendBroke(BackendError, CutShort):
    """The backend closed the connection before its answer, or amid it."""


class _Stale(BackendBroke):
    """A pooled connection turned out to be closed; not one byte came back on it."""


class Upstream:
    """Opens and closes with the gateway."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the pool; needs a running event loop."""
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        trace.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=trust(self._backend)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            skip_auto_headers=ADDED_BY_AIOHTTP,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADER_BYTES,
            trace_configs=[trace],
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        method: str,
        target: bytes,
        *,
        headers: Headers,
        content: Content,
        on_sent: Callable[[], None],
    ) -> aiohttp.ClientResponse:
        """Send a request and give its answer once the head has come; the caller closes it.

        `on_sent` is called once the request's head has been written to the backend.

        Where the backend had closed a pooled connection, the request goes once more, unless its
        content was a stream. Raises BackendAway or BackendBroke.
        """
        try:
            return await self._send_once(method, target, headers, content, on_sent)
        except _Stale as error:
            if content is None or isinstance(content, bytes):
                return await self._send_once(method, target, headers, content, on_sent)
            raise BackendBroke(str(error)) from error

    async def _send_once(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        content: Content,
        on_sent: Callable[[], None],
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the gateway is not open: run it with its lifespan on")
        connection = _Connection(on_sent)
        try:
            return await self._session.request(
                method,
                URL(self._backend.url + target.decode("ascii"), encoded=True),
                headers=_multidict(headers, content),
                data=_pieces(content),
                allow_redirects=False,
                trace_request_ctx=connection,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise BackendAway(unreachable(self._backend, error)) from error
        except aiohttp.ClientError as error:
            kind = _Stale if connection.reused and _said_nothing(error) else BackendBroke
            raise kind(broken(self._backend, error)) from error

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The bytes of an answer's body as they come; raises BackendBroke where it is cut short."""
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except aiohttp.ClientError as error:
            raise BackendBroke(broken(self._backend, error)) from error


class _Connection:
    """Whether one request went out on a connection that had been used before."""

    def __init__(self, on_sent: Callable[[], None]) -> None:
        self.reused = False
        self.on_sent = on_sent


async def _note_reuse(session: object, context: SimpleNamespace, params: object) -> None:
    del session, params
    context.trace_request_ctx.reused = True


async def _note_sent(session: object, context: SimpleNamespace, params: object) -> None:
    del session, params
    context.trace_request_ctx.on_sent()


def _said_nothing(error: aiohttp.ClientError) -> bool:
    """Whether the connection ended without one byte of an answer."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)
    return isinstance(error, aiohttp.ClientOSError)


def _multidict(headers: Headers, content: Content) -> CIMultiDict[str]:
    fields = CIMultiDict((name.decode(), _text(value)) for name, value in headers)
    if isinstance(content, bytes):
        fields["content-length"] = str(len(content))
    return fields


def _text(value: bytes) -> str:
    """A header's value so that aiohttp, which writes UTF-8, writes these bytes if it can."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _pieces(content: Content) -> Content:
    if isinstance(content, bytes) and len(content) > MAX_PLAIN_BYTES:
        return _cut(content)
    return content


async def _cut(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]
