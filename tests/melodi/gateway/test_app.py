"""The gateway changes nothing it passes on, and records what it watched."""

import asyncio
import gzip
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest
from scripted_server import (
    CUT,
    MemoryRecorder,
    ScriptedServer,
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
from melodi.gateway.app import Gateway, create_gateway
from melodi.gateway.connection import BackendBroke
from melodi.inference.request import Backend, BackendKind
from melodi.inference.timeline import RequestTimeline

GENERATE = b'{"model":"tiny:latest","prompt":"hi","options":{"num_predict":3}}'
FIRST = b'{"model":"tiny","response":"a b","done":false}\n'
LAST = (
    b'{"model":"tiny","response":"","done":true,"done_reason":"length","total_duration":8229873,'
    b'"load_duration":1014130,"prompt_eval_count":6,"prompt_eval_duration":5371000,"eval_count":3,'
    b'"eval_duration":537000}\n'
)
NDJSON = [stream_head("application/x-ndjson"), chunk(FIRST), chunk(LAST), chunk(b"")]


def open_descriptors() -> int:
    """How many files and sockets this process, the gateway's thread included, holds open."""
    return len(list(Path("/proc/self/fd").iterdir()))


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


@pytest.mark.parametrize(
    "target",
    [
        "/a/../b//c/./d",
        "/x%2Fy%20z%zz/%C3%A9",
        "/q?a=b&&c=+%20d;e|f",
        "/api/tags?",
        "//evil/x?u=http://evil/",
        "/a:b@c;p=1,2!$'()*~",
    ],
)
async def test_path_and_query_go_as_received(target: str) -> None:
    """No normalising, no decoding: the request line is the client's."""
    async with gateway([response(b"{}")]) as setup:
        await setup.raw(f"GET {target} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n".encode())
        line = setup.backend.requests[0].line
    assert line == f"GET {target.removesuffix('?')} HTTP/1.1".encode()


async def test_the_backend_sees_the_clients_headers_and_no_others() -> None:
    """Order, repeats and values stay; only hop-by-hop and MELODI's own fields go, Host is set."""
    request = (
        b"GET /api/tags HTTP/1.1\r\nHost: gateway\r\nX-B: 1\r\nAuthorization: Bearer s\r\n"
        b'X-A: 2\r\nX-B:  3 \r\nCookie: a=b; c="d"\r\nX-Hop: gone\r\n'
        b"Connection: close, X-Hop\r\nTE: trailers\r\n"
        b"X-Melodi-Tags: k=v\r\nX-Melodi-Energy: wait\r\nX-Utf: caf\xc3\xa9\r\n\r\n"
    )
    async with gateway([response(b"{}")]) as setup:
        await setup.raw(request)
        seen = [(name.lower(), value) for name, value in setup.backend.requests[0].headers]
        host = f"127.0.0.1:{setup.backend.port}".encode()
    assert seen == [
        (b"host", host),
        (b"x-b", b"1"),
        (b"authorization", b"Bearer s"),
        (b"x-a", b"2"),
        (b"x-b", b"3"),
        (b"cookie", b'a=b; c="d"'),
        (b"x-utf", b"caf\xc3\xa9"),
    ]


async def test_the_client_sees_the_backends_answer_and_one_more_header() -> None:
    """Status, header order and values, and body bytes stay; the record's id is added."""
    extra = b"Set-Cookie: a=1\r\nX-Z: \xe9\r\nSet-Cookie: b=2\r\nServer: s\r\nKeep-Alive: 1\r\n"
    async with gateway([response(LAST, extra=extra)]) as setup:
        answer = await setup.raw(post("/api/generate", GENERATE))
        timeline = await setup.recorder.one()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == LAST
    assert head.lower().split(b"\r\n") == [
        b"http/1.1 200 ok",
        b"content-type: application/json",
        b"content-length: %d" % len(LAST),
        b"set-cookie: a=1",
        b"x-z: \xe9",
        b"set-cookie: b=2",
        b"server: s",
        b"x-melodi-request-id: " + timeline.id.encode(),
        b"connection: close",
    ]
    assert timeline.status is Status.OK
    assert timeline.streamed is False
    assert (timeline.input_tokens, timeline.output_tokens) == (6, 3)


async def test_a_stream_leaves_a_whole_record() -> None:
    """What was asked, what came back and when are in the timeline of a streamed request."""
    headers = "X-Melodi-Tags: team=a, run=7,broken\r\nX-Melodi-Campaign: c1\r\n"
    async with gateway(NDJSON) as setup:
        asked_ns = time.monotonic_ns()
        answer = await setup.raw(post("/api/generate", GENERATE, headers=headers))
        timeline = await setup.recorder.one()
        told_ns = time.monotonic_ns()
    assert FIRST in answer
    assert setup.backend.requests[0].body == GENERATE
    assert (timeline.model, timeline.prompt, timeline.response) == ("tiny", "hi", "a b")
    assert timeline.tags == {"team": "a", "run": "7"}
    assert timeline.campaign == "c1"
    assert timeline.streamed is True
    assert timeline.http_status == 200
    assert timeline.finish_reason == "length"
    assert timeline.generation == {"num_predict": 3}
    assert timeline.end_ns is not None
    assert timeline.first_token_ns == timeline.chunk_ns[0]
    assert timeline.sent_ns < timeline.chunk_ns[0] <= timeline.end_ns
    assert timeline.overhead_ns is not None
    assert 0 < timeline.overhead_ns < told_ns - asked_ns


async def test_bytes_leave_before_the_backend_has_said_more() -> None:
    """A piece of a stream reaches the client while the backend still holds back the next."""
    go_on = asyncio.Event()
    steps = [stream_head("application/x-ndjson"), chunk(FIRST), go_on, chunk(LAST), chunk(b"")]
    async with gateway(steps) as setup, aiohttp.ClientSession() as client:
        async with client.post(f"{setup.url}/api/generate", data=GENERATE) as answer:
            assert await answer.content.readline() == FIRST
            go_on.set()
            assert await answer.content.readline() == LAST
        assert (await setup.recorder.one()).status is Status.OK


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


async def test_compressed_answers_pass_compressed_and_are_read() -> None:
    """The client gets the backend's bytes; a copy is unpacked for the record."""
    packed = gzip.compress(LAST)
    async with gateway([response(packed, extra=b"Content-Encoding: gzip\r\n")]) as setup:
        answer = await setup.raw(post("/api/generate", GENERATE))
        timeline = await setup.recorder.one()
    assert answer.endswith(b"\r\n\r\n" + packed)
    assert timeline.output_tokens == 3


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"done":true,"done_reason":"load"}', "load"),
        (b'{"done":true,"done_reason":"unload"}', "unload"),
    ],
)
async def test_a_call_that_only_loads_is_told_from_its_begin_and_named_as_such(
    body: bytes, reason: str
) -> None:
    """The books need it while it runs; it has no record, so the client is told of none."""
    async with gateway([response(body)]) as setup:
        answer = await setup.raw(post("/api/generate", b'{"model":"m"}'))
        load = await setup.recorder.one()
    assert b"x-melodi" not in answer.lower()
    assert setup.recorder.begun == [load]
    assert load.load_only
    assert (load.backend, load.model, load.finish_reason) == ("b", "m", reason)


async def test_other_paths_stream_both_ways_and_leave_no_record() -> None:
    """A large upload arrives whole, chunked as it came."""
    body = bytes(range(256)) * 12_000

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    async with gateway([response(b"{}")]) as setup, aiohttp.ClientSession() as client:
        async with client.post(f"{setup.url}/api/blobs/sha256:1", data=pieces()) as answer:
            assert answer.status == 200
        assert setup.backend.requests[0].body == body
        assert b"transfer-encoding: chunked" in setup.backend.requests[0].head.lower()
        assert setup.recorder.begun == []


@pytest.mark.parametrize("size", [3_000_000, 70_000_000], ids=["read", "unread"])
async def test_large_inference_bodies_pass_unchanged(size: int) -> None:
    """Up to 64 MiB they are read for the record; beyond, they pass unread and model is unknown."""
    body = b'{"model":"m","prompt":"' + b"x" * size + b'"}'
    async with gateway([response(LAST)]) as setup, aiohttp.ClientSession() as client:
        async with client.post(f"{setup.url}/api/generate", data=io.BytesIO(body)) as r:
            assert r.status == 200
        timeline = await setup.recorder.one()
        assert setup.backend.requests[0].body == body
    assert timeline.model == (None if size > 64 * 1024 * 1024 else "m")
    assert timeline.output_tokens == 3


async def test_redirects_are_the_clients_to_follow() -> None:
    """A 307 comes back as it is, on any path."""
    away = response(b"", status="307 Temporary Redirect", extra=b"Location: http://evil/\r\n")
    async with gateway([away]) as setup:
        answer = await setup.raw(post("/api/pull", b"{}"))
        assert len(setup.backend.requests) == 1
    assert answer.startswith(b"HTTP/1.1 307")
    assert b"location: http://evil/" in answer


async def test_header_fields_of_60_kib_pass() -> None:
    """Long fields pass both ways."""
    long = b"v" * 60_000
    async with gateway([response(b"{}", extra=b"X-Long: " + long + b"\r\n")]) as setup:
        answer = await setup.raw(
            b"GET / HTTP/1.1\r\nHost: g\r\nConnection: close\r\nX-L: " + long + b"\r\n\r\n"
        )
        assert (b"X-L", long) in [(n.title(), v) for n, v in setup.backend.requests[0].headers]
    assert long in answer


@pytest.mark.parametrize("ws", ["auto", "none"])
async def test_a_websocket_upgrade_gets_501(ws: str) -> None:
    """The gateway passes none, and says so."""
    request = (
        b"GET /v1/realtime HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with gateway([CUT], ws=ws) as setup:
        reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
        writer.write(request)
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        assert setup.backend.requests == []
    assert line.startswith(b"HTTP/1.1 501")


async def test_a_websocket_is_closed_where_the_server_can_send_no_answer() -> None:
    """Without the ASGI extension for it, it is closed before it was accepted."""
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    backend = Backend(name="b", kind=BackendKind.VLLM, url="http://127.0.0.1:1")
    app = create_gateway(backend, MemoryRecorder(), SystemClock())
    await app({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close"}]


async def test_a_recorder_that_raises_breaks_no_traffic() -> None:
    """The answer comes whole when neither begin nor end can be recorded."""

    class Broken:
        def begin(self, timeline: RequestTimeline) -> None:
            raise OSError("disk full")

        def end(self, timeline: RequestTimeline) -> None:
            raise OSError("disk full")

    async with scripted(NDJSON) as backend:
        app = create_gateway(
            Backend(name="b", kind=BackendKind.OLLAMA, url=backend.url), Broken(), SystemClock()
        )
        with served(app) as url:
            async with (
                aiohttp.ClientSession() as client,
                client.post(f"{url}/api/generate", data=GENERATE) as answer,
            ):
                assert await answer.read() == FIRST + LAST


async def test_a_head_request_has_a_head_alone() -> None:
    """The length it tells passes; the connection stays usable."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n"
    async with gateway([head]) as setup, aiohttp.ClientSession() as client:
        for _ in range(2):
            async with client.head(f"{setup.url}/") as answer:
                assert (answer.status, answer.headers["Content-Length"]) == (200, "17")
        assert [seen.connection for seen in setup.backend.requests] == [1, 1]


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


VLLM_EVENTS = [
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n',
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":6}}\n\n',
    b"data: [DONE]\n\n",
]
VLLM_STREAM = [stream_head("text/event-stream"), *map(chunk, VLLM_EVENTS), chunk(b"")]
CHAT = b'{"model":"m","stream":true, "messages":[{"role":"user","content":"hi"}] }\n'


async def test_usage_is_asked_of_vllm_and_taken_out_again() -> None:
    """The record has its tokens; the client has the events that it would have had anyway."""
    async with (
        gateway(VLLM_STREAM, BackendKind.VLLM) as setup,
        aiohttp.ClientSession() as client,
        client.post(f"{setup.url}/v1/chat/completions", data=CHAT) as answer,
    ):
        body = await answer.read()
        timeline = await setup.recorder.one()
        sent = setup.backend.requests[0]
    assert body == VLLM_EVENTS[0] + VLLM_EVENTS[2]
    assert sent.body == CHAT[:-2] + b',"stream_options":{"include_usage":true}}\n'
    assert (b"content-length", b"%d" % len(sent.body)) in [
        (name.lower(), value) for name, value in sent.headers
    ]
    assert (timeline.status, timeline.input_tokens, timeline.output_tokens) == (Status.OK, 7, 6)


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        (BackendKind.VLLM, "/v1/chat/completions", CHAT.replace(b"true", b"false")),
        (BackendKind.VLLM, "/v1/chat/completions", CHAT[:-2] + b',"stream_options":null}'),
        (BackendKind.VLLM, "/v1/messages", CHAT),
        (BackendKind.OPENAI, "/v1/chat/completions", CHAT),
    ],
)
async def test_nothing_is_added_to_other_requests(
    kind: BackendKind, path: str, body: bytes
) -> None:
    """Not streamed, spoken of by the client, told anyway, or a server that may not know it."""
    async with (
        gateway(VLLM_STREAM, kind) as setup,
        aiohttp.ClientSession() as client,
        client.post(f"{setup.url}{path}", data=body) as answer,
    ):
        assert await answer.read() == b"".join(VLLM_EVENTS)
        assert setup.backend.requests[0].body == body


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
