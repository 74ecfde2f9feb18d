"""The backend's side of the gateway: one pool of connections that changes nothing it carries."""

from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from melodi.errors import BackendError
from melodi.gateway.headers import Headers

KEEPALIVE_SECONDS = 3
"""Shorter than uvicorn's 5 s, so that a connection is never used while the backend closes it."""
CONNECT_SECONDS = 30
MAX_HEADER_BYTES = 64 * 1024
MAX_PLAIN_BYTES = 1024 * 1024
"""Larger bodies go in pieces, so that one write does not hold up the others."""
ADDED_BY_AIOHTTP = frozenset({"Accept", "Accept-Encoding", "User-Agent", "Content-Type"})

MakeBody = Callable[[], bytes | AsyncIterator[bytes] | None]


class BackendAway(BackendError):
    """No connection to the backend could be made."""


class BackendBroke(BackendError):
    """The backend closed the connection before its answer, or amid it."""


class Upstream:
    """Opens and closes with the gateway."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the pool; needs a running event loop."""
        reuse = aiohttp.TraceConfig()
        reuse.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            skip_auto_headers=ADDED_BY_AIOHTTP,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADER_BYTES,
            trace_configs=[reuse],
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self, method: str, target: bytes, *, headers: Headers, body: MakeBody
    ) -> aiohttp.ClientResponse:
        """Send a request and give its answer once the head has come; the caller closes it.

        A pooled connection that the backend had closed is replaced once, where `body` can be made
        again: only bytes can. Raises BackendAway or BackendBroke.
        """
        content = body()
        try:
            return await self._send_once(method, target, headers, content)
        except StaleConnection as error:
            if isinstance(content, bytes | None):
                return await self._send_once(method, target, headers, content)
            raise BackendBroke(str(error)) from error
