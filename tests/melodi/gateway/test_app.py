"""The gateway changes nothing it passes on, and records what it watched."""

import asyncio
import gzip
import io
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from gateways import FIRST, GENERATE, LAST, NDJSON, gateway, post
from scripted_server import (
    CUT,
    MemoryRecorder,
    chunk,
    response,
    stream_head,
)

from melodi.clock import SystemClock
from melodi.energy.record import Status
from melodi.gateway.app import create_gateway
from melodi.inference.request import Backend, BackendKind

VLLM_EVENTS = [
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n',
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":6}}\n\n',
    b"data: [DONE]\n\n",
]
VLLM_STREAM = [stream_head("text/event-stream"), *map(chunk, VLLM_EVENTS), chunk(b"")]
CHAT = b'{"model":"m","stream":true, "messages":[{"role":"user","content":"hi"}] }\n'


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


async def test_a_head_request_has_a_head_alone() -> None:
    """The length it tells passes; the connection stays usable."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n"
    async with gateway([head]) as setup, aiohttp.ClientSession() as client:
        for _ in range(2):
            async with client.head(f"{setup.url}/") as answer:
                assert (answer.status, answer.headers["Content-Length"]) == (200, "17")
        assert [seen.connection for seen in setup.backend.requests] == [1, 1]


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
