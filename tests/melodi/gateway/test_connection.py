"""The gateway's side towards the backend, in the cases that HTTP leaves to its reader."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scripted_server import CUT, ScriptedServer, Step, chunk, response, scripted, stream_head
from waiting import PATIENCE_SECONDS, until

from melodi.clock import SystemClock
from melodi.gateway import upstream as module
from melodi.gateway.connection import MOST_UNTAKEN_BYTES, Answer, BackendBroke
from melodi.gateway.upstream import BackendAway, Content, Upstream
from melodi.inference.request import Backend, BackendKind

BODY = b'{"ok":true}'


@asynccontextmanager
async def upstream_of(url: str, ca: Path | None = None) -> AsyncIterator[Upstream]:
    """An open pool for the server there."""
    backend = Backend(name="b", kind=BackendKind.OPENAI, url=url, ca=ca)
    made = Upstream(backend, SystemClock())
    made.open()
    yield made
    await made.close()


async def ask(
    upstream: Upstream, method: str = "POST", content: Content = b"{}", **headers: str
) -> Answer:
    """Send one request."""
    pairs = [(name.encode(), text.encode()) for name, text in headers.items()]
    return await upstream.send(method, b"/x", headers=pairs, content=content, on_sent=lambda: None)


async def whole(answer: Answer) -> bytes:
    """All of an answer's body; closes it."""
    parts = []
    try:
        while part := await answer.read():
            parts.append(part)
    finally:
        answer.close()
    return b"".join(parts)


Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The authority of a server whose connections end with `handle`, and all with the context."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await handle(reader, writer)
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*(task for task in tasks if task is not None))


@asynccontextmanager
async def talk(steps: Sequence[Step]) -> AsyncIterator[tuple[Upstream, ScriptedServer]]:
    """A pool before a server that answers everything with these steps."""
    async with scripted(steps) as server, upstream_of(server.url) as upstream:
        yield upstream, server


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    """As HTTP/1.0 does it: that end is a proper one, and the connection is not used again."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)

    async with listening(answer) as place, upstream_of(f"http://{place}") as upstream:
        for _ in range(2):
            assert await whole(await ask(upstream)) == BODY
    assert connections == 2


async def test_interim_answers_are_passed_over() -> None:
    """What counts is the answer that follows them."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with talk([early, response(BODY)]) as (upstream, _):
        answer = await ask(upstream)
        assert answer.status == 200
        assert b"link" not in dict(answer.headers)
        assert await whole(answer) == BODY


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_an_answer_that_has_no_body_by_its_status_leaves_the_connection_whole(
    status: str,
) -> None:
    """The next request goes over the same one."""
    async with talk([f"HTTP/1.1 {status}\r\n\r\n".encode()]) as (upstream, server):
        for _ in range(2):
            assert await whole(await ask(upstream)) == b""
        assert server.connections == 1


async def test_more_than_was_asked_for_is_no_answer_to_the_next_request() -> None:
    """A second answer on the same connection belongs to nobody: the connection is closed."""
    async with talk([response(BODY) + response(b"{}")]) as (upstream, server):
        with pytest.raises(BackendBroke):
            await whole(await ask(upstream))
        await server.all_closed()


@pytest.mark.parametrize("garbage", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nX" + b"-" * 2_000_000])
async def test_what_is_no_http_is_said_so(garbage: bytes) -> None:
    """Nor does a head without end fill the memory."""
    async with talk([garbage, asyncio.Event()]) as (upstream, server):
        with pytest.raises(BackendBroke, match="broke off"):
            await ask(upstream)
        await server.all_closed()


async def test_an_answer_may_come_before_the_body_is_sent() -> None:
    """A refusal ends the upload; the connection, half used, is closed."""

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b"too much", status="413 Content Too Large"))
        await reader.read()
        closed.set()

    closed = asyncio.Event()
    async with listening(refuse) as place, upstream_of(f"http://{place}") as upstream:
        answer = await ask(upstream, content=endless())
        assert answer.status == 413
        assert await whole(answer) == b"too much"
        await closed.wait()


async def test_an_answer_comes_no_faster_than_it_is_taken() -> None:
    """The backend is held back, so that a slow client costs no memory."""
    piece = chunk(bytes(64 * 1024))
    pieces = 2_000
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stream_head("text/plain"))
        for _ in range(pieces):
            writer.write(piece)
            written += len(piece)
            await writer.drain()
        writer.write(chunk(b""))

    async with listening(pour) as place, upstream_of(f"http://{place}") as upstream:
        answer = await ask(upstream, content=None)
        await until(lambda: answer._paused)
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.05)
        # One read of the event loop may bring 256 KiB at once.
        assert answer._untaken_bytes <= MOST_UNTAKEN_BYTES + 256 * 1024
        assert written < pieces * len(piece) / 2
        assert len(await whole(answer)) == pieces * 64 * 1024


async def test_idle_connections_are_closed_before_the_backend_closes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody has to ask for that."""
    monkeypatch.setattr(module, "KEEPALIVE_SECONDS", 0.05)
    async with talk([response(BODY)]) as (upstream, server):
        await whole(await ask(upstream))
        assert server.open_connections == 1
        await server.all_closed()


async def test_a_backend_that_is_away_is_told_from_one_that_broke() -> None:
    """No connection could be made."""
    async with scripted([CUT]) as server:
        url = server.url
    async with upstream_of(url) as upstream:
        with pytest.raises(BackendAway, match="is not reachable"):
            await ask(upstream)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, in one file."""
    key, cert, both = (tmp_path / name for name in ("key.pem", "cert.pem", "both.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command, "-keyout", key, "-out", cert],
            check=True,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )
    except FileNotFoundError:
        pytest.skip("needs openssl: apt install openssl")
    both.write_text(key.read_text() + cert.read_text())
    return both


async def test_a_backend_may_speak_tls(certificate: Path) -> None:
    """With a certificate of the authority that is named; else it counts as away."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(response(BODY))
        await reader.read()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with listening(answer, context) as place:
        async with upstream_of(f"https://{place}") as upstream:
            with pytest.raises(BackendAway):
                await ask(upstream)
        async with upstream_of(f"https://{place}", certificate) as upstream:
            assert await whole(await ask(upstream)) == BODY
