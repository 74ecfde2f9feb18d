"""A server that answers at once, or in chunks at a steady pace; it costs next to nothing.

python -m benchmarks.gateway.upstream: prints its port, ends with its stdin.
"""

import asyncio
import gc
import re
import sys
import time
from typing import cast

import uvloop

from benchmarks.gateway.wire import (
    CHUNKS,
    HOST,
    PACE_NS,
    STREAM_HEAD,
    event,
    plain_answer,
    stream_end,
)

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": *true')
_USAGE = re.compile(rb'"include_usage": *true')
_PLAIN = plain_answer()
_MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","owned_by":"vllm"}]}'
_OTHER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_MODELS),
    _MODELS,
)


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests come one after the other."""

    def __init__(self) -> None:
        self._seen = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, gap, body = self._seen.partition(b"\r\n\r\n")
        if not gap:
            return
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(body) < size:
            return
        self._seen = body[size:]
        self._answer(head, body[:size])

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            self._transport.write(_OTHER)
        elif _STREAM.search(body):
            self._transport.write(STREAM_HEAD)
            self._stream(0, time.monotonic_ns(), usage=_USAGE.search(body) is not None)
        else:
            self._transport.write(_PLAIN)

    def _stream(self, number: int, due_ns: int, *, usage: bool) -> None:
        """Write chunk `number`, and come back for the next when it is due."""
        while number < CHUNKS and due_ns <= time.monotonic_ns():
            self._transport.write(event(number, due_ns))
            number, due_ns = number + 1, due_ns + PACE_NS
        if number == CHUNKS:
            self._transport.write(stream_end(usage=usage))
            return
        delay = (due_ns - time.monotonic_ns()) / 1e9
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, lambda: self._stream(number, due_ns, usage=usage))


async def main() -> None:
    # Its own pauses would be taken for those of whoever stands before it.
    gc.freeze()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, HOST, 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
