"""Through the gateway a client has what it would have had without it."""

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from raw_http import HOP_BY_HOP, Headers, RawAnswer, ask
from scripted_server import CUT, MemoryRecorder, ScriptedServer, Step, chunk, scripted, served

from melodi.clock import SystemClock
from melodi.gateway.app import create_gateway
from melodi.inference.observer import DIALECTS
from melodi.inference.request import Backend, BackendKind
from melodi.logs import _CutsAreNoErrors

EXAMPLES = 300
BIG = 50 * 1024 * 1024


@dataclass
class Pair:
    """A backend that answers by script, its gateway, and what the backend saw."""

    server: ScriptedServer
    gateway: str
    steps: Sequence[Step] = field(default_factory=list)

    def both(self, steps: Sequence[Step], request: "Request") -> tuple[RawAnswer, RawAnswer]:
        """The answer to one request, direct and through the gateway; the requests seen agree."""
        self.steps = steps
        self.server.requests.clear()
        answers = [request.send(url) for url in (self.server.url, self.gateway)]
        direct, passed = self.server.requests
        assert direct.line == passed.line
        assert seen(direct.headers) == seen(passed.headers)
        assert direct.body == passed.body
        return answers[0], answers[1]


def seen(headers: Headers) -> Headers:
    """What a backend sees beside the connection's own fields, whose place may differ."""
    own = HOP_BY_HOP | {b"host", b"content-length"}
    return [(name.lower(), value) for name, value in headers if name.lower() not in own]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """One backend and one gateway for all examples, so that connections are used again."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> ScriptedServer:
        context = scripted(lambda request: found.steps)
        contexts.append(context)
        return await context.__aenter__()

    async def stop() -> None:
        await contexts[0].__aexit__(None, None, None)

    contexts: list = []
    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    backend = Backend(name="b", kind=BackendKind.OPENAI, url=server.url)
    try:
        with served(create_gateway(backend, MemoryRecorder(), SystemClock())) as url:
            found = Pair(server, url)
            yield found
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(frozen=True)
class Request:
    """What a client sends."""

    method: str = "POST"
    target: str = "/v1/chat/completions"
    headers: Headers = field(default_factory=list)
    pieces: Sequence[bytes] | None = (b"{}",)
    chunked: bool = False

    def send(self, url: str) -> RawAnswer:
        return ask(
            url,
            self.method,
            self.target,
            headers=self.headers,
            pieces=self.pieces,
            chunked=self.chunked,
        )


@dataclass(frozen=True)
class Answer:
    """What a backend answers, and how it frames it."""

    status: int
    headers: Headers
    pieces: Sequence[bytes]
    framing: str

    def steps(self, method: str) -> list[Step]:
        bare = method == "HEAD" or self.status in (204, 304)
        fields = list(self.headers)
        if self.framing == "length" and self.status != 204:
            length = sum(map(len, self.pieces))
            fields.append((b"Content-Length", b"%d" % length))
        elif self.framing == "chunked" and not bare:
            fields.append((b"Transfer-Encoding", b"chunked"))
        head = b"HTTP/1.1 %d Odd Words\r\n" % self.status
        steps: list[Step] = [head + b"".join(b"%s: %s\r\n" % one for one in fields) + b"\r\n"]
        if not bare and self.framing == "chunked":
            steps += [*(chunk(piece) for piece in self.pieces if piece), chunk(b"")]
        elif not bare:
            steps += list(self.pieces)
        return [*steps, CUT] if self.framing == "close" else steps


TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!#$%&'*+^`|~"
NAMES = st.text(TOKEN, min_size=1, max_size=12).map(lambda name: b"X" + name.encode())
NAMES |= st.sampled_from(
    [b"Set-Cookie", b"ETag", b"Via", b"Location", b"Authorization", b"x-request-id", b"Accept",
     b"Accept-Encoding", b"User-Agent", b"Date", b"Server", b"Cookie", b"Content-Language"]
)  # fmt: skip
WORDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
VALUES = (WORDS | st.text("äß→\t x")).map(lambda text: text.strip(" \t").encode())
VALUES |= st.binary(max_size=20).map(
    lambda data: bytes(byte for byte in data if byte >= 0x20 and byte != 0x7F).strip()
)
LINE = json.dumps({"model": "m", "choices": [], "usage": {"prompt_tokens": 3}}).encode()
BODIES = st.one_of(
    st.binary(max_size=600),
    st.just(LINE),
    st.lists(st.sampled_from([b"data: " + LINE + b"\n\n", b"data: [DONE]\n\n"])).map(b"".join),
    st.lists(st.sampled_from([LINE + b"\n", b'{"done":true}\r\n', b"\xff\n"])).map(b"".join),
    st.binary(max_size=200).map(gzip.compress),
    st.binary(max_size=200).map(lambda data: gzip.compress(data)[:-3]),
)
TARGETS = st.one_of(
    st.sampled_from(sorted(DIALECTS["openai"])),
    st.text("abc/.%20~:@!$&'()*+,;=-_", max_size=20).map(lambda path: f"/{path}"),
).flatmap(
    lambda path: st.text("ab=&%20+?/[]|\\", max_size=12).map(
        lambda query: f"{path}?{query}" if query else path
    )
)
TYPES = st.sampled_from(
    [b"application/json", b"application/x-ndjson", b"text/event-stream; charset=utf-8",
     b"text/plain", b"nonsense", b""]
)  # fmt: skip
ENCODINGS = st.sampled_from([None, b"gzip", b"br", b"zstd", b"deflate", b"GZIP", b"x, y"])


def split(body: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(one, len(body)) for one in at), len(body)]
    return [body[edges[k] : edges[k + 1]] for k in range(len(edges) - 1)]


PIECES = st.builds(split, BODIES, st.lists(st.integers(0, 600), max_size=6))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    method = draw(st.sampled_from(["POST", "POST", "GET", "HEAD", "PUT", "DELETE", "PATCH"]))
    return Request(
        method=method,
        target=draw(TARGETS),
        headers=draw(st.lists(st.tuples(NAMES, VALUES), max_size=6)),
        pieces=draw(st.none() | PIECES),
        chunked=draw(st.booleans()),
    )


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    headers = [(b"Content-Type", draw(TYPES))]
    headers += draw(st.lists(st.tuples(NAMES, VALUES), max_size=6))
    if (encoding := draw(ENCODINGS)) is not None:
        headers.append((b"Content-Encoding", encoding))
    return Answer(
        status=draw(st.sampled_from([200, 201, 204, 304]) | st.integers(200, 599)),
        headers=headers,
        pieces=draw(PIECES),
        framing=draw(st.sampled_from(["length", "chunked", "close"])),
    )


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(requests(), answers())
def test_nothing_is_changed(pair: Pair, request_sent: Request, answer: Answer) -> None:
    """Line, fields and body of the request; status, fields in their order and body of the answer,
    whatever they are and however they are framed."""
    event(f"{request_sent.method} {answer.framing}")
    direct, passed = pair.both(answer.steps(request_sent.method), request_sent)
    assert passed.passed_on == direct.passed_on
    assert direct.whole


@settings(max_examples=40)
@given(answers().filter(lambda one: one.framing != "close" and sum(map(len, one.pieces))))
def test_what_is_cut_short_is_cut_short_at_the_same_byte(pair: Pair, answer: Answer) -> None:
    """No end is made up, and no byte that came is lost."""
    steps = answer.steps("POST")
    if len(steps) < 3:
        return
    direct, passed = pair.both([*steps[:-1], CUT], Request())
    assert passed.passed_on == direct.passed_on


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_fifty_megabytes_pass_both_ways(pair: Pair, framing: str) -> None:
    """Byte for byte, on a path that is watched."""
    block = bytes(range(256)) * 4096
    pieces = [block] * (BIG // len(block))
    request = Request(pieces=pieces, chunked=framing == "chunked")
    direct, passed = pair.both(Answer(200, [], pieces, framing).steps("POST"), request)
    assert len(passed.body) == BIG
    assert passed.passed_on == direct.passed_on


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_answer_that_may_have_no_body_is_no_failure(
    pair: Pair, caplog: pytest.LogCaptureFixture, method: str, status: int
) -> None:
    """A length beside a 304 tells of the body that there would have been; nothing is logged."""
    caplog.handler.addFilter(_CutsAreNoErrors())
    head = b"HTTP/1.1 %d X\r\n%s\r\n" % (status, b"Content-Length: 7\r\n" * (status == 304))
    direct, passed = pair.both([head, CUT], Request(method=method, pieces=None))
    assert passed.passed_on == direct.passed_on
    # What would have been logged of the first answer has been, once there is a second.
    pair.both([head, CUT], Request(method="HEAD", pieces=None))
    assert caplog.records == []
