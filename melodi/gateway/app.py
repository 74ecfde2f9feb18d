"""A proxy that changes nothing it passes on, and watches the requests that cost energy."""

import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from melodi.clock import Clock
from melodi.errors import BackendError, CutShort
from melodi.gateway import headers as fields
from melodi.gateway.connection import Answer
from melodi.gateway.energy import ASKS, WAIT, Books, Head, Teller, Wish
from melodi.gateway.inbound import ClientLeft, Inbound, Receive, Send
from melodi.gateway.upstream import BackendAway, Upstream
from melodi.gateway.usage import PATHS, UsageFilter, ask
from melodi.gateway.watch import Unwatched, Watch
from melodi.inference.backends.base import Dialect, Ending, RequestFacts
from melodi.inference.observer import dialect_of
from melodi.inference.reading import RequestReader
from melodi.inference.recording import GuardedRecorder, new_timeline
from melodi.inference.request import Backend, BackendKind
from melodi.inference.timeline import Recorder

logger = logging.getLogger(__name__)

Scope = Mapping[str, Any]

MAX_READ_BYTES = 64 * 1024 * 1024
"""Longer request bodies pass unread."""
NO_WEBSOCKET = "MELODI's gateway passes no WebSocket: connect to the backend itself"


class HeadAlone(CutShort):
    """A 304 may tell the length of the body that it leaves out; the server takes that for a cut."""


class Gateway:
    """The ASGI app in front of one backend; its lifespan opens and closes the connections."""

    def __init__(
        self, backend: Backend, recorder: Recorder, clock: Clock, *, books: Books | None
    ) -> None:
        self._backend = backend
        self._recorder = GuardedRecorder(recorder)
        self._clock = clock
        self._teller = None if books is None else Teller(books, clock)
        self._upstream = Upstream(backend, clock)
        self._reader = RequestReader()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's worth of ASGI: its lifespan, a request, or a refused WebSocket."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await _refuse_websocket(scope, receive, send)
        elif fields.first(scope["headers"], b"upgrade") == "websocket":
            await _answer_error(send, 501, NO_WEBSOCKET, path=scope["path"])
        elif not scope["raw_path"].startswith(b"/"):
            await _answer_error(send, 400, "ask for a path: it begins with /", path=scope["path"])
        else:
            await self._serve(scope, Inbound(receive), send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._upstream.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._upstream.close()
        self._reader.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, inbound: Inbound, send: Send) -> None:
        """Pass one request on, until it is done or its client has left."""
        try:
            with inbound.watched():
                await self._exchange(scope, inbound, send)
        except ClientLeft:
            pass

    async def _exchange(self, scope: Scope, inbound: Inbound, send: Send) -> None:
        dialect = dialect_of(self._backend.kind, scope["path"])
        body: bytes | None = None
        usage: UsageFilter | None = None
        watch: Watch | Unwatched = Unwatched()
        wish: Wish | None = None
        if scope["method"] == "POST" and dialect is not None:
            body = await inbound.read(MAX_READ_BYTES)
            taken_ns = self._clock.monotonic_ns()
            facts = await self._read(scope["path"], body)
            watch = self._watch(scope, dialect, facts)
            wish = self._wish(scope, watch, facts)
            watch.taken(taken_ns)
            if body is not None and facts.streamed and self._asks_usage(scope["path"]):
                asked = ask(body)
                body, usage = (body, None) if asked is None else (asked, UsageFilter())
        with watch:
            try:
                response = await self._upstream.send(
                    scope["method"],
                    _target(scope),
                    headers=fields.to_backend(scope["headers"]),
                    content=body if body is not None else _stream(scope, inbound),
                    on_sent=watch.sent,
                )
            except BackendError as error:
                if inbound.gone:
                    raise ClientLeft from error
                watch.fail(str(error), reached=not isinstance(error, BackendAway))
                await _answer_error(send, 502, str(error), path=scope["path"], extra=watch.headers)
                return
            try:
                await self._relay(response, watch, usage, send, wish=wish)
            finally:
                response.close()

    async def _relay(
        self,
        response: Answer,
        watch: Watch | Unwatched,
        usage: UsageFilter | None,
        send: Send,
        *,
        wish: Wish | None,
    ) -> None:
        """Send an answer on as it comes; each piece leaves before it is read."""
        if usage is not None and not _is_plain_event_stream(response.headers):
            usage = None
        watch.head(response.status, response.headers)
        headers = fields.to_client(response.headers) + watch.headers
        head = Head(response.status, headers)
        if wish is not None and (splice := wish.splice(head)) is not None:
            pieces = response.pieces()
            await wish.teller.relay(head, pieces, splice, watch=watch, usage=usage, send=send)
            return
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        watch.passed(response.at_ns)
        if response.status == 304 and fields.first(response.headers, b"content-length"):
            watch.end(response.at_ns, Ending.CLEAN)
            raise HeadAlone
        more = True
        while more:
            chunk = await response.read()
            at_ns, more = response.at_ns, not response.is_over
            passing = chunk if usage is None else usage.feed(chunk)
            if usage is not None and not more:
                passing += usage.finish()
            if passing or not more:
                await send({"type": "http.response.body", "body": passing, "more_body": more})
            watch.feed(chunk, at_ns)
        watch.end(at_ns, Ending.CLEAN)

    async def _read(self, path: str, body: bytes | None) -> RequestFacts:
        if body is None:
            return RequestFacts()
        return await self._reader.read(self._backend.kind, path, body)

    def _asks_usage(self, path: str) -> bool:
        backend = self._backend
        return backend.kind is BackendKind.VLLM and backend.asks_usage and path in PATHS

    def _wish(self, scope: Scope, watch: Watch, facts: RequestFacts) -> Wish | None:
        """That the client wants to be told the energy; a call that only loads has no record."""
        if self._teller is None or fields.first(scope["headers"], ASKS) != WAIT:
            return None
        return Wish(self._teller, facts.streamed) if watch.headers else None

    def _watch(self, scope: Scope, dialect: Dialect, facts: RequestFacts) -> Watch:
        timeline = new_timeline(self._backend, self._clock, facts=facts)
        timeline.tags = fields.parse_tags(fields.first(scope["headers"], fields.TAGS))
        timeline.campaign = fields.first(scope["headers"], fields.CAMPAIGN)
        return Watch(timeline, dialect=dialect, recorder=self._recorder, clock=self._clock)


def create_gateway(
    backend: Backend, recorder: Recorder, clock: Clock, *, books: Books | None = None
) -> Gateway:
    """The gateway of one backend, as an ASGI app; nothing is opened yet.

    `books` tells clients that ask for it what their answers cost; None: nobody does.
    """
    return Gateway(backend, recorder, clock, books=books)


def _target(scope: Scope) -> bytes:
    """Path and query as they were received."""
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


def _stream(scope: Scope, inbound: Inbound) -> AsyncIterator[bytes] | None:
    names = {name for name, _ in scope["headers"]}
    if b"content-length" in names or b"transfer-encoding" in names:
        return inbound.chunks()
    inbound.skip()
    return None


def _is_plain_event_stream(headers: fields.Headers) -> bool:
    content_type = fields.first(headers, b"content-type") or ""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "text/event-stream" and not fields.first(headers, b"content-encoding")


async def _answer_error(
    send: Send, status: int, message: str, *, path: str, extra: fields.Headers | None = None
) -> None:
    """An error in the shape that clients of this path read."""
    error: object = message
    if not path.startswith("/api/"):
        error = {"message": message, "type": "gateway_error", "param": None, "code": status}
    body = orjson.dumps({"error": error})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *(extra or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "websocket.http.response.start", "status": 501, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": NO_WEBSOCKET.encode()})
