"""Responses that are made while a request runs, and that end with it if the client leaves."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from melodi.simulator.engine import Generation
from melodi.simulator.faults import ConnectionCut

ID_HEADER = "X-Simulator-Id"
_PROMISED = b"64"


class StreamReply:
    """Sends chunks as they come."""

    def __init__(
        self, generation: Generation, chunks: AsyncIterator[bytes], *, headers: Mapping[str, str]
    ):
        self._generation = generation
        self._chunks = chunks
        self._headers = _encode({**headers, ID_HEADER: str(generation.id)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        with self._generation:
            await _while_connected(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        with suppress(ConnectionCut):
            async for chunk in self._chunks:
                await send(_part(chunk, more=True))
            await send(_part(b"", more=False))


class WholeReply:
    """Sends one response when the request is through."""

    def __init__(self, generation: Generation, response: Coroutine[None, None, Response]):
        self._generation = generation
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._generation:
            await _while_connected(receive, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._response
        except ConnectionCut:
            headers = [(b"content-type", b"application/json"), (b"content-length", _PROMISED)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send(_part(b"{", more=True))
        else:
            response.headers[ID_HEADER] = str(self._generation.id)
            await response(scope, receive, send)


async def _while_connected(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Do `work`, but stop it when the client goes."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _part(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _encode(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
