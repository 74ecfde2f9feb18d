"""Clients that leave and backends that break, seen through the gateway."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import orjson
import pytest
from gateways import FIRST, GENERATE, LAST, NDJSON, Setup, gateway, post
from scripted_server import (
    CUT,
    BrokenRecorder,
    MemoryRecorder,
    SeenRequest,
    Step,
    chunk,
    response,
    scripted,
    served,
    stream_head,
)
from waiting import until

from melodi.clock import SystemClock
from melodi.energy.record import Status
from melodi.gateway.app import create_gateway
from melodi.gateway.connection import BackendBroke
from melodi.inference.request import Backend, BackendKind


def open_descriptors() -> int:
    """How many files and sockets this process, the gateway's thread included, holds open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_client_that_leaves_ends_the_backends_work() -> None:
    """The backend's connection closes, and the record says cancelled."""
    never = asyncio.Event()
    steps = [stream_head("application/x-ndjson"), chunk(FIRST), never]
    async with gateway(steps) as setup, aiohttp.ClientSession() as client:
        async with client.post(f"{setup.url}/api/generate", data=GENERATE) as answer:
            await answer.content.readline()
            answer.close()
        timeline = await setup.recorder.one()
        await setup.backend.all_closed()
    assert timeline.status is Status.CANCELLED
    assert timeline.response == "a b"


async def test_a_client_that_leaves_before_the_answer_begins_is_noticed() -> None:
    """Waiting for a plain answer, the gateway still watches its client."""
    async with gateway([asyncio.Event()]) as setup:
        _, writer = await asyncio.open_connection("127.0.0.1", setup.port)
        writer.write(post("/api/generate", GENERATE))
        await setup.backend.arrived.wait()
        writer.close()
        await writer.wait_closed()
        timeline = await setup.recorder.one()
        await setup.backend.all_closed()
    assert timeline.status is Status.CANCELLED
    assert (timeline.http_status, timeline.reached) == (None, True)


@pytest.mark.parametrize("length", [b"", b"Content-Length: 999\r\n"], ids=["chunked", "length"])
async def test_a_body_cut_short_ends_cut_short(length: bytes) -> None:
    """The client can tell that the backend broke off; the record says incomplete."""
    if length:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n" + length + b"\r\n"
        steps: Sequence[Step] = [head + FIRST, CUT]
    else:
        steps = [stream_head("application/x-ndjson"), chunk(FIRST), CUT]
    async with gateway(steps) as setup, aiohttp.ClientSession() as client:
        async with client.post(f"{setup.url}/api/generate", data=GENERATE) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        timeline = await setup.recorder.one()
    assert timeline.status is Status.INCOMPLETE
    assert timeline.response == "a b"


async def test_a_backend_that_is_away_is_named_and_recorded() -> None:
    """502 says which backend and what to do, in the shape that the client's API has."""
    async with gateway([CUT]) as setup:
        pass
    recorder = MemoryRecorder()
    backend = Backend(name="b", kind=BackendKind.OLLAMA, url=setup.backend.url)
    with served(create_gateway(backend, recorder, SystemClock())) as url:
        async with aiohttp.ClientSession() as client:
            async with client.post(f"{url}/api/generate", data=GENERATE) as answer:
                assert answer.status == 502
                native = await answer.json()
                request_id = answer.headers["X-Melodi-Request-Id"]
            async with client.get(f"{url}/v1/models") as answer:
                shared = await answer.json()
        timeline = await recorder.one()
    message = f"backend b at {setup.backend.url} is not reachable: start it or mend its url"
    assert native == {"error": message}
    assert shared["error"]["message"] == message
    assert (timeline.id, timeline.status, timeline.error) == (request_id, Status.ERROR, message)
    assert (timeline.http_status, timeline.reached) == (None, False)


async def test_a_backend_that_drops_a_new_connection_is_not_asked_twice() -> None:
    """Its work may have begun: no retry, 502, one record."""
    async with gateway([CUT]) as setup, aiohttp.ClientSession() as client:
        async with client.post(f"{setup.url}/api/generate", data=GENERATE) as answer:
            assert answer.status == 502
        timeline = await setup.recorder.one()
        assert len(setup.backend.requests) == 1
    assert not timeline.dispatched
    assert timeline.status is Status.ERROR
    assert "broke off its answer" in (timeline.error or "")
    assert timeline.reached


async def test_a_stale_connection_is_replaced_once() -> None:
    """A pooled connection that dies with no byte back costs the client nothing."""

    def answer(request: object) -> Sequence[Step]:
        count = len(setup.backend.requests)
        return [CUT] if count in (2, 4, 5) else [response(LAST)]

    async with gateway(answer) as setup, aiohttp.ClientSession() as client:
        statuses = []
        for _ in range(3):
            async with client.post(f"{setup.url}/api/generate", data=GENERATE) as reply:
                statuses.append(reply.status)
        connections = [seen.connection for seen in setup.backend.requests]
    assert statuses == [200, 200, 502]
    assert connections == [1, 1, 2, 2, 3]


async def test_a_stale_connection_that_gave_one_byte_is_not_replaced() -> None:
    """Half a status line means that the backend had begun."""

    def answer(request: object) -> Sequence[Step]:
        first = len(setup.backend.requests) == 1
        return [response(LAST)] if first else [b"HTTP/1.1 200 OK\r\nX-Half", CUT]

    async with gateway(answer) as setup, aiohttp.ClientSession() as client:
        statuses = []
        for _ in range(2):
            async with client.post(f"{setup.url}/api/generate", data=GENERATE) as reply:
                statuses.append(reply.status)
        assert len(setup.backend.requests) == 2
    assert statuses == [200, 502]


async def test_a_recorder_that_raises_breaks_no_traffic() -> None:
    """The answer comes whole when neither begin nor end can be recorded."""

    async with scripted(NDJSON) as backend:
        app = create_gateway(
            Backend(name="b", kind=BackendKind.OLLAMA, url=backend.url),
            BrokenRecorder(),
            SystemClock(),
        )
        with served(app) as url:
            async with (
                aiohttp.ClientSession() as client,
                client.post(f"{url}/api/generate", data=GENERATE) as answer,
            ):
                assert await answer.read() == FIRST + LAST


async def test_a_client_that_leaves_an_endless_get_is_noticed() -> None:
    """A request without a body is watched too."""
    steps = [stream_head("text/plain"), chunk(b"x"), asyncio.Event()]
    async with gateway(steps) as setup, aiohttp.ClientSession() as client:
        async with client.get(f"{setup.url}/logs") as answer:
            await answer.content.readexactly(1)
            assert setup.backend.open_connections == 1
            answer.close()
        await setup.backend.all_closed()
        assert setup.recorder.begun == []


async def test_no_fault_leaves_a_connection_open() -> None:
    """After good ends, leavers, cuts and refusals, open descriptors are back where they began."""
    endings = {
        "good": [response(LAST, extra=b"Connection: close\r\n"), CUT],
        "wait": [asyncio.Event()],
        "hang": [stream_head("application/x-ndjson"), chunk(FIRST), asyncio.Event()],
        "cut": [stream_head("application/x-ndjson"), chunk(FIRST), CUT],
        "drop": [CUT],
        "refuse": [response(b'{"error":"busy"}', status="503 Busy"), CUT],
    }

    def answer(request: SeenRequest) -> Sequence[Step]:
        return endings[orjson.loads(request.body)["prompt"]]

    round_start = 0

    def waiting(setup: Setup) -> bool:
        return any(b'"wait"' in seen.body for seen in setup.backend.requests[round_start:])

    async def one(setup: Setup, name: str) -> None:
        body = orjson.dumps({"model": "m", "prompt": name})
        reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
        writer.write(post("/api/generate", body))
        if name == "wait":
            await until(lambda: waiting(setup))
        elif name == "hang":
            await reader.readuntil(FIRST)
        else:
            await reader.read()
        writer.close()
        await writer.wait_closed()

    async with gateway(answer) as setup:
        await one(setup, "drop")
        await setup.backend.all_closed()
        before = open_descriptors()
        for _ in range(3):
            round_start = len(setup.backend.requests)
            await asyncio.gather(*(one(setup, name) for name in endings))
        ended = await setup.recorder.all(1 + 3 * len(endings))
        await setup.backend.all_closed()
        await until(lambda: open_descriptors() <= before)
    assert Counter(timeline.status for timeline in ended) == {
        Status.OK: 3,
        Status.CANCELLED: 6,
        Status.INCOMPLETE: 3,
        Status.ERROR: 7,
    }


async def test_a_cut_answer_raises_out_of_the_app() -> None:
    """Whatever server runs it is told that the response is not whole."""

    async def receive() -> dict[str, object]:
        if not asked.is_set():
            asked.set()
            return {"type": "http.request", "body": GENERATE}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: object) -> None:
        sent.append(message)

    asked = asyncio.Event()
    sent: list[object] = []
    scope = {"type": "http", "method": "POST", "path": "/api/generate", "headers": []}
    scope |= {"raw_path": b"/api/generate", "query_string": b""}
    async with scripted([stream_head("application/x-ndjson"), chunk(FIRST), CUT]) as backend:
        app = create_gateway(
            Backend(name="b", kind=BackendKind.OLLAMA, url=backend.url),
            MemoryRecorder(),
            SystemClock(),
        )
        app._upstream.open()
        with pytest.raises(BackendBroke, match=r"backend b at .* broke off"):
            await app(scope, receive, send)
        await app._upstream.close()
    assert sent[-1] == {"type": "http.response.body", "body": FIRST, "more_body": True}
