"""Clients and backends that misbehave leave nothing behind but one record each."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_server import MemoryRecorder, ScriptedServer, scripted, served
from storm import CORPUS_FILES, KINDS, Storm, answer
from waiting import until

from melodi.clock import SystemClock
from melodi.energy.record import Status
from melodi.gateway.app import create_gateway
from melodi.inference.request import Backend, BackendKind

SEED = 1
REQUESTS = 300
AT_ONCE = 40


class Watched:
    """The gateway's app, whose event loop can be looked into."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.loop = asyncio.get_running_loop()
        await self._app(scope, receive, send)

    def tasks(self) -> int:
        assert self.loop is not None
        return len(asyncio.all_tasks(self.loop))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def gateway(
    storm: Storm,
) -> AsyncIterator[tuple[str, ScriptedServer, MemoryRecorder, Watched]]:
    recorder = MemoryRecorder()
    async with scripted(answer) as backend:  # type: ignore[arg-type]
        one = Backend(name="b", kind=BackendKind.OLLAMA, url=backend.url)
        app = Watched(create_gateway(one, recorder, SystemClock()))
        context = served(app)
        url = await asyncio.to_thread(context.__enter__)
        try:
            yield url, backend, recorder, app
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


async def test_a_storm_leaves_one_record_each_and_nothing_else() -> None:
    """Leavers at random points, slow and silent clients, backends that die, never end, or speak
    nonsense: every answer is the backend's own; connections, tasks and descriptors are back."""
    storm = Storm(SEED)
    async with gateway(storm) as (url, backend, recorder, app):
        await storm.send(url, "dropped", 0)
        await backend.all_closed()
        descriptors, tasks = open_descriptors(), app.tasks()
        await storm.blow(url, REQUESTS, at_once=AT_ONCE)
        assert storm.wrong == []
        assert set(storm.sent) == set(KINDS)
        await until(lambda: len(recorder.ended) >= storm.owed)
        await storm.send(url, "whole", 0)
        # Idle connections to the backend live three seconds.
        await backend.all_closed()
        await until(lambda: open_descriptors() <= descriptors)
        await until(lambda: app.tasks() <= tasks)
        gc.collect()
    assert storm.wrong == []
    assert len(recorder.begun) == len(recorder.ended) == storm.owed
    assert len({one.id for one in recorder.ended}) == storm.owed
    found = {one.status for one in recorder.ended}
    assert found == {Status.OK, Status.ERROR, Status.CANCELLED, Status.INCOMPLETE}


@pytest.mark.parametrize("file", CORPUS_FILES, ids=lambda file: file.name)
async def test_malformed_streams_pass_as_they_are(file: Path) -> None:
    """And each leaves a record."""
    storm = Storm(0)
    async with gateway(storm) as (url, _, recorder, _):
        await storm.send(url, "corpus", CORPUS_FILES.index(file) / len(CORPUS_FILES) + 1e-9)
        timeline = await recorder.one()
    assert storm.wrong == []
    assert timeline.http_status == 200


async def test_silent_clients_hold_up_nobody() -> None:
    """Three hundred that never end their request, and one that does."""
    storm = Storm(0)
    async with gateway(storm) as (url, backend, recorder, _):
        port = int(url.rpartition(":")[2])
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        for _, writer in silent:
            writer.write(b"POST /api/generate HTTP/1.1\r\nHost: g\r\nContent-Length: 99\r\n\r\n{")
        await storm.send(url, "whole", 0)
        await recorder.one()
        assert len(backend.requests) == 1
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
    assert storm.wrong == []
