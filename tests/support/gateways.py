"""A gateway between a scripted backend and whoever asks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scripted_server import (
    MemoryRecorder,
    ScriptedServer,
    chunk,
    scripted,
    served,
    stream_head,
)

from melodi.clock import SystemClock
from melodi.gateway.app import Gateway, create_gateway
from melodi.inference.request import Backend, BackendKind

GENERATE = b'{"model":"tiny:latest","prompt":"hi","options":{"num_predict":3}}'
FIRST = b'{"model":"tiny","response":"a b","done":false}\n'
LAST = (
    b'{"model":"tiny","response":"","done":true,"done_reason":"length","total_duration":8229873,'
    b'"load_duration":1014130,"prompt_eval_count":6,"prompt_eval_duration":5371000,"eval_count":3,'
    b'"eval_duration":537000}\n'
)
NDJSON = [stream_head("application/x-ndjson"), chunk(FIRST), chunk(LAST), chunk(b"")]


class Setup:
    """A scripted backend, the gateway before it, and what was recorded."""

    def __init__(
        self, app: Gateway, backend: ScriptedServer, url: str, recorder: MemoryRecorder
    ) -> None:
        self.app, self.backend, self.url, self.recorder = app, backend, url, recorder
        self.port = int(url.rpartition(":")[2])

    async def raw(self, request: bytes) -> bytes:
        """What comes back for these bytes until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


@asynccontextmanager
async def gateway(
    answer: object, kind: BackendKind = BackendKind.OLLAMA, *, ws: str = "auto"
) -> AsyncIterator[Setup]:
    """A gateway under uvicorn, with what it has behind it."""
    recorder = MemoryRecorder()
    async with scripted(answer) as backend:  # type: ignore[arg-type]
        app = create_gateway(Backend(name="b", kind=kind, url=backend.url), recorder, SystemClock())
        context = served(app, ws=ws)
        url = await asyncio.to_thread(context.__enter__)
        try:
            yield Setup(app, backend, url, recorder)
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


def post(path: str, body: bytes, *, headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{headers}"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
