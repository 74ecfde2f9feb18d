"""Whatever breaks in measuring and storing, what passes through is what it would have been."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa
import structlog
from waiting import until

from melodi.clock import SystemClock
from melodi.daemon.runtime import Runtime
from melodi.daemon.serve import served
from melodi.store.database import open_engine
from melodi.store.queries import RequestFilter
from melodi.store.records import RecordStore

CLOCK = SystemClock()
DEVICE = "gpu:SIMULATED-0"
STREAMS = 100
TOKENS = 40
CREATED = re.compile(rb'"created":\d+')

pytestmark = [
    pytest.mark.parametrize("stage", ["vllm"], indirect=True),
    # Two of the faults end a thread.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


async def answer(session: aiohttp.ClientSession, url: str, number: int) -> bytes:
    """One stream, without the second in which it was made."""
    messages = [{"role": "user", "content": f"Tell story {number}."}]
    body = {"model": "simulated", "messages": messages, "max_tokens": TOKENS, "stream": True}
    path = f"{url}/v1/chat/completions"
    async with session.post(path, json=body, headers={"X-Request-Id": f"r{number}"}) as found:
        assert found.status == 200
        return CREATED.sub(b"", await found.read())


@asynccontextmanager
async def streams(url: str) -> AsyncIterator["asyncio.Future[list[bytes]]"]:
    """A hundred at once."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield asyncio.gather(*(answer(session, url, number) for number in range(STREAMS)))


Undo = Callable[[], None]


def kill_sampler(runtime: Runtime, patch: pytest.MonkeyPatch) -> Undo | None:
    """Its thread ends; nothing brings it back."""
    patch.setattr(runtime.sampler.stations[0], "take", _end_thread)
    return None


def kill_books(runtime: Runtime, patch: pytest.MonkeyPatch) -> Undo | None:
    """Likewise the thread that keeps the books."""
    patch.setattr(runtime.books, "_turn", _end_thread)
    return lambda: None


def break_ledger(runtime: Runtime, patch: pytest.MonkeyPatch) -> Undo:
    """It raises whatever it is asked for."""
    patch.setattr(runtime.books._ledger, "advance", _fail(ValueError("a bug")))
    return patch.undo


def break_store(runtime: Runtime, patch: pytest.MonkeyPatch) -> Undo:
    """The database fails with every write."""
    error = sa.exc.OperationalError("INSERT", {}, OSError("the database is away"))
    patch.setattr(runtime.store, "apply", _fail(error))
    return patch.undo


def break_spool(runtime: Runtime, patch: pytest.MonkeyPatch) -> Undo:
    """Its folder is no folder any more, and its file cannot be written."""
    spool = runtime.books._delivery.spool
    for segment in spool._segments:
        os.close(segment._descriptor)
        segment._descriptor = os.open("/dev/full", os.O_WRONLY)
    shutil.rmtree(spool.folder, ignore_errors=True)
    spool.folder.write_text("in the way")
    return spool.folder.unlink


def _end_thread(*_: object, **__: object) -> None:
    raise SystemExit


def _fail(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


FAULTS = [
    (kill_sampler, "the sampler of simulated has died", True),
    (break_ledger, "the books cannot be kept: ValueError", True),
    (break_store, "the database cannot be written: the database is away", True),
    (break_spool, "begin lines cannot be written", True),
    (kill_books, "the bookkeeper has stopped", False),
]


@contextmanager
def as_other_kind(stage: Any) -> Iterator[Any]:
    """The same server, to whose requests nothing is added, so that bytes can be compared."""
    one = stage.settings.backends[0].model_copy(update={"kind": "openai"})
    yield stage.settings.model_copy(update={"backends": [one]})


@pytest.mark.parametrize(("break_it", "said", "recovers"), FAULTS)
async def test_a_hundred_streams_are_whole_while_it_is_broken(
    stage: Any,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[Runtime, pytest.MonkeyPatch], Undo | None],
    said: str,
    recovers: bool,
) -> None:
    """Byte for byte as direct; readiness, metrics and log tell the fault; no record is lost."""
    monkeypatch.setattr("melodi.daemon.vigil.LOOK_SECONDS", 0.02)
    async with streams(stage.simulator.url) as direct:
        expected = await direct
    with as_other_kind(stage) as settings, structlog.testing.capture_logs() as log:
        async with served(settings, clock=CLOCK, probes=stage.probes()) as daemon:
            runtime = daemon.runtime
            await until(lambda: runtime.registry.get_sample_value("melodi_ready") == 1.0)
            async with streams(daemon.gateway_urls["sim"]) as passing:
                await until(lambda: runtime.books.in_flight >= STREAMS // 2)
                with monkeypatch.context() as patch:
                    undo = break_it(runtime, patch)
                    assert await passing == expected
                    await until(lambda: any(said in fault for fault in runtime.faults()))
                    assert await told(daemon.api_url, said)
                    await until(lambda: any(said in one.get("fault", "") for one in log))
                    if undo is not None:
                        undo()
            if recovers:
                await until(lambda: not runtime.books._pending)
    engine = open_engine(stage.settings.database.url)
    found = RecordStore(engine).page(RequestFilter(), limit=1000).items
    engine.dispose()
    assert len(found) == STREAMS
    assert all(one.status == "ok" and not one.provisional for one in found)


async def test_dead_books_take_no_more_than_they_have_room_for(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for them is bounded and said; what passes through is what it would have been."""
    room = STREAMS // 2
    async with streams(stage.simulator.url) as direct:
        expected = await direct
    with as_other_kind(stage) as settings:
        async with served(settings, clock=CLOCK, probes=stage.probes()) as daemon:
            books = daemon.runtime.books
            await until(lambda: not daemon.runtime.faults())
            monkeypatch.setattr("melodi.daemon.bookkeeper.MOST_WAITING", room)
            with monkeypatch.context() as patch:
                kill_books(daemon.runtime, patch)
                await until(lambda: not books._thread.is_alive())
                async with streams(daemon.gateway_urls["sim"]) as passing:
                    assert await passing == expected
                beats = daemon.runtime.sampler.curves[DEVICE].edges
                seen = len(beats)
                await until(lambda: len(beats) > seen + 3)
                # Whoever was taken in may also end.
                assert books._inbox.qsize() <= 2 * room
                assert await told(daemon.api_url, "requests that came then have no record")
    engine = open_engine(stage.settings.database.url)
    found = RecordStore(engine).page(RequestFilter(), limit=1000).items
    engine.dispose()
    assert 0 < len(found) <= room
    assert all(one.status == "ok" and not one.provisional for one in found)


async def told(url: str, said: str) -> bool:
    """Readiness names the fault, and the metrics say that there is one."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/readyz") as ready:
            assert ready.status == 503
            assert any(said in fault for fault in (await ready.json())["faults"])
        async with session.get(f"{url}/metrics") as metrics:
            return "melodi_ready 0.0" in (await metrics.text()).splitlines()
