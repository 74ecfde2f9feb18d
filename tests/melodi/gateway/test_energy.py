"""A client that asks is told what its answer cost, and no answer fails because of it."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from scripted_server import (
    CUT,
    MemoryRecorder,
    ScriptedServer,
    chunk,
    response,
    scripted,
    served,
    stream_head,
)

from melodi.clock import SystemClock
from melodi.energy.record import EnergyRecord, Quality, Status
from melodi.gateway.app import create_gateway
from melodi.inference.request import Backend, BackendKind

RECORD = EnergyRecord(
    id="r",
    host="h",
    backend="b",
    backend_kind="ollama",
    status=Status.OK,
    started_at=datetime.now(UTC),
    duration_seconds=2.0,
    energy_joules=3600.0,
    gpu_joules=30.0,
    low_joules=30.0,
    high_joules=40.0,
    quality=Quality.MEASURED,
    policy="tokens",
    provisional=True,
)
ENERGY = {
    "energy_joules": 3600.0,
    "energy_kwh": 0.001,
    "avg_power_watts": 1800.0,
    "duration_seconds": 2.0,
    "gpu_joules": 30.0,
    "cpu_joules": None,
    "low_joules": 30.0,
    "high_joules": 40.0,
    "quality": "measured",
    "method": "tokens",
    "provisional": True,
}
UNKNOWN = dict.fromkeys(ENERGY) | {"quality": "none", "provisional": True}
ASK = {"X-Melodi-Energy": "wait"}
PLAIN = b'{"model":"m","prompt":"hi","stream":false}'
STREAM = b'{"model":"m","prompt":"hi","stream":true}'
ANSWER = b'{"model":"m","response":"a","done":true,"done_reason":"stop"}'
FIRST = b'{"model":"m","response":"a","done":false}\n'


class Books:
    """Knows one record, which stays as it stands; notes whether the request had ended."""

    def __init__(self, record: EnergyRecord | None = RECORD) -> None:
        self.record = record
        self.recorder = MemoryRecorder()
        self.ended_when_asked: list[int] = []

    async def energy(self, _: str) -> EnergyRecord | None:
        self.ended_when_asked.append(len(self.recorder.ended))
        return self.record


class Broken(Books):
    """Fails whatever it is asked."""

    async def energy(self, _: str) -> EnergyRecord | None:
        raise RuntimeError("a bug")


@asynccontextmanager
async def gateway(
    answer: object, books: Books, kind: BackendKind = BackendKind.OLLAMA
) -> AsyncIterator[tuple[aiohttp.ClientSession, ScriptedServer]]:
    """A client of a gateway that asks `books`."""
    async with scripted(answer) as backend:  # type: ignore[arg-type]
        one = Backend(name="b", kind=kind, url=backend.url)
        app = create_gateway(one, books.recorder, SystemClock(), books=books)
        context = served(app)
        url = await asyncio.to_thread(context.__enter__)
        try:
            async with aiohttp.ClientSession(
                url, headers=ASK, auto_decompress=False, timeout=aiohttp.ClientTimeout(20)
            ) as client:
                yield client, backend
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


def without_energy(body: bytes, energy: dict[str, Any] = ENERGY) -> bytes:
    """The server's own bytes, once the field is taken out; it must be in there once."""
    field = b',"energy":' + json.dumps(energy, separators=(",", ":")).encode()
    assert body.count(field) == 1, body
    return body.replace(field, b"")


async def test_a_plain_answer_gains_the_energy_and_a_new_length() -> None:
    """In the body, in short in the headers, once the request has ended; all else stays."""
    books = Books()
    steps = [response(ANSWER + b"\n", extra=b"X-A: 1\r\n")]
    async with gateway(steps, books) as (client, backend):
        async with client.post("/api/generate", data=PLAIN) as answer:
            body = await answer.read()
            headers = answer.headers
        assert b"energy" not in backend.requests[0].head.lower()
    assert without_energy(body) == ANSWER + b"\n"
    assert json.loads(body)["energy"] == ENERGY
    assert int(headers["Content-Length"]) == len(body)
    assert (headers["X-Energy-Joules"], headers["X-Energy-Method"]) == ("3600.0", "tokens")
    assert headers["X-A"] == "1"
    assert books.ended_when_asked == [1]


async def test_a_final_record_is_told_as_final_and_an_estimate_as_one() -> None:
    """The method says what the figure is."""

    class Quick(Books):
        async def energy(self, _: str) -> EnergyRecord | None:
            return replace(RECORD, provisional=False, quality=Quality.ESTIMATED)

    async with (
        gateway([response(ANSWER)], Quick()) as (client, _),
        client.post("/api/generate", data=PLAIN) as answer,
    ):
        told = (await answer.json())["energy"]
        method = answer.headers["X-Energy-Method"]
    assert (told["provisional"], told["quality"], told["method"], method) == (
        False,
        "estimated",
        "tokens, estimated",
        "tokens, estimated",
    )


async def test_a_chunked_plain_answer_stays_chunked() -> None:
    """No length is added where the server told none."""
    head = stream_head("application/json; charset=utf-8")
    steps = [head, chunk(ANSWER[:9]), chunk(ANSWER[9:]), chunk(b"")]
    async with (
        gateway(steps, Books()) as (client, _),
        client.post("/api/generate", data=PLAIN) as answer,
    ):
        assert (await answer.json())["energy"] == ENERGY
        assert "Content-Length" not in answer.headers


async def test_lines_gain_the_energy_in_the_last_one() -> None:
    """The others have left long before."""
    go_on = asyncio.Event()
    steps = [
        stream_head("application/x-ndjson"),
        chunk(FIRST),
        go_on,
        chunk(ANSWER + b"\n"),
        chunk(b""),
    ]
    async with (
        gateway(steps, Books()) as (client, _),
        client.post("/api/generate", data=STREAM) as answer,
    ):
        assert await answer.content.readline() == FIRST
        go_on.set()
        last = await answer.content.read()
        assert "X-Energy-Joules" not in answer.headers
    assert without_energy(last) == ANSWER + b"\n"


EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
MESSAGE = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{}}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
TEXT = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta"}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n'


@pytest.mark.parametrize(
    ("path", "events", "last"),
    [
        ("/v1/chat/completions", EVENT, DONE),
        ("/v1/messages", MESSAGE, STOP),
        ("/v1/responses", TEXT, COMPLETED),
        ("/v1/chat/completions", EVENT, b""),
    ],
)
async def test_events_gain_a_comment_before_the_last_one(
    path: str, events: bytes, last: bytes
) -> None:
    """Or at the end, where the server just stops; readers of events pass comments over."""
    steps = [stream_head("text/event-stream"), chunk(events), chunk(last) if last else b""]
    async with (
        gateway([*steps, chunk(b"")], Books(), BackendKind.OPENAI) as (client, _),
        client.post(path, data=STREAM) as answer,
    ):
        body = await answer.read()
    before, _, rest = body.partition(b": energy ")
    told, _, after = rest.partition(b"\n\n")
    assert (before, after) == (events, last)
    assert json.loads(told) == ENERGY


async def test_usage_is_taken_out_and_energy_put_in() -> None:
    """Both at once, of a vLLM stream that did not ask for its tokens."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":6}}\n\n'
    steps = [stream_head("text/event-stream"), chunk(EVENT + usage + DONE), chunk(b"")]
    books = Books()
    async with (
        gateway(steps, books, BackendKind.VLLM) as (client, _),
        client.post("/v1/chat/completions", data=STREAM) as answer,
    ):
        body = await answer.read()
    assert body.startswith(EVENT + b": energy {")
    assert body.endswith(b"}\n\n" + DONE)
    assert b"usage" not in body
    assert (await books.recorder.one()).output_tokens == 6


async def test_a_server_that_goes_on_after_the_end_holds_nobody_up() -> None:
    """The client has its last event although the connection stays busy; what follows passes."""
    go_on = asyncio.Event()
    steps = [stream_head("text/event-stream"), chunk(EVENT + DONE), go_on, chunk(b": late\n\n")]
    async with (
        gateway([*steps, chunk(b"")], Books(), BackendKind.OPENAI) as (client, _),
        client.post("/v1/chat/completions", data=STREAM) as answer,
    ):
        assert (await answer.content.readuntil(DONE)).startswith(EVENT + b": energy {")
        go_on.set()
        assert await answer.content.read() == b": late\n\n"


async def test_a_compressed_answer_is_told_of_in_headers_alone() -> None:
    """Its bytes are the server's."""
    packed = gzip.compress(ANSWER)
    steps = [response(packed, extra=b"Content-Encoding: gzip\r\n")]
    async with (
        gateway(steps, Books()) as (client, _),
        client.post("/api/generate", data=PLAIN) as answer,
    ):
        assert await answer.read() == packed
        assert answer.headers["X-Energy-Joules"] == "3600.0"


async def test_an_answer_cut_short_is_told_of_in_headers_alone_and_ends_cut_short() -> None:
    """With the length and the bytes that the server gave it."""
    whole = response(ANSWER)
    books = Books()
    async with (
        gateway([whole[:-5], CUT], books) as (client, _),
        client.post("/api/generate", data=PLAIN) as answer,
    ):
        assert answer.headers["X-Energy-Joules"] == "3600.0"
        assert int(answer.headers["Content-Length"]) == len(ANSWER)
        assert await answer.content.readexactly(len(ANSWER) - 5) == ANSWER[:-5]
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert (await books.recorder.one()).status is Status.INCOMPLETE


@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/event-stream"])
async def test_a_stream_cut_short_ends_with_the_servers_last_byte(kind: str) -> None:
    """Nothing is added to it, and nothing of it is kept."""
    steps = [stream_head(kind), chunk(FIRST + b"data: [DO"), CUT]
    books = Books()
    async with (
        gateway(steps, books) as (client, _),
        client.post("/api/generate", data=STREAM) as answer,
    ):
        got = await answer.content.readexactly(len(FIRST) + 9)
        assert got == FIRST + b"data: [DO"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert books.ended_when_asked == []


@pytest.mark.parametrize(
    ("body", "steps"),
    [
        (PLAIN, [response(b'{"error":"busy"}', status="503 Busy")]),
        (PLAIN, [response(b"a text", "text/plain")]),
        (STREAM, [response(ANSWER)]),
        (b'{"model":"m"}', [response(ANSWER)]),
        (PLAIN, [b"HTTP/1.1 204 No Content\r\n\r\n"]),
    ],
    ids=["error", "text", "stream-as-json", "load", "empty"],
)
async def test_other_answers_pass_at_once(body: bytes, steps: list[bytes]) -> None:
    """Errors, other types, what may be a stream, and calls that leave no record."""
    books = Books()
    async with gateway(steps, books) as (client, _):
        async with client.post("/api/generate", data=body) as answer:
            got = await answer.read()
        assert steps[0].endswith(got)
        assert "X-Energy-Joules" not in answer.headers
    assert books.ended_when_asked == []


async def test_only_who_asks_is_told() -> None:
    """Without the header, or with another word in it, the answer is the server's."""
    books = Books()
    async with gateway([response(ANSWER)], books) as (client, _):
        for value in ("", "no"):
            headers = {"X-Melodi-Energy": value}
            async with client.post("/api/generate", data=PLAIN, headers=headers) as answer:
                assert await answer.read() == ANSWER
    assert books.ended_when_asked == []


@pytest.mark.parametrize("books", [Broken(), Books(None)], ids=["broken", "unknown"])
async def test_energy_that_nobody_knows_is_null_and_fails_nothing(books: Books) -> None:
    """No header tells a figure that is none."""
    async with (
        gateway([response(ANSWER)], books) as (client, _),
        client.post("/api/generate", data=PLAIN) as answer,
    ):
        assert answer.status == 200
        body = await answer.read()
        assert "X-Energy-Joules" not in answer.headers
        assert "X-Energy-Method" not in answer.headers
    assert without_energy(body, UNKNOWN) == ANSWER


async def test_a_client_that_leaves_while_it_waits_leaves_a_whole_record() -> None:
    """The answer had ended; that nobody took it does not change what it was."""

    class Slow(Books):
        async def energy(self, _: str) -> EnergyRecord | None:
            await asyncio.sleep(60)
            return None

    books = Slow()
    async with gateway([response(ANSWER)], books) as (client, backend):
        asking = asyncio.ensure_future(client.post("/api/generate", data=PLAIN))
        timeline = await books.recorder.one()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await backend.all_closed()
    assert timeline.status is Status.OK
