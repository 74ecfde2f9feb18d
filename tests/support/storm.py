"""Every way in which clients and backends misbehave, many at once, in random order."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import orjson
from scripted_server import CUT, SeenRequest, Step, chunk, response, stream_head

CORPUS = Path(__file__).resolve().parents[1] / "melodi" / "gateway" / "corpus"
LINE = b'{"model":"m","response":"word ","done":false}\n'
LAST = (
    b'{"model":"m","response":"","done":true,"done_reason":"stop","prompt_eval_count":3,'
    b'"eval_count":9,"total_duration":9,"load_duration":1,"eval_duration":5}\n'
)
LINES = 20
STREAM = stream_head("application/x-ndjson")
TYPES = {".sse": "text/event-stream", ".ndjson": "application/x-ndjson"}
CORPUS_FILES = sorted(CORPUS.iterdir())
BOMB = b"X-Bomb: " + b"b" * 3_000_000 + b"\r\n"


def _never() -> Iterator[Step]:
    yield STREAM
    while True:
        yield chunk(LINE * 10)


ANSWERS: dict[str, Sequence[Step]] = {
    "whole": [response(LAST)],
    "stream": [STREAM, *[chunk(LINE)] * LINES, chunk(LAST), chunk(b"")],
    "killed": [STREAM, chunk(LINE), CUT],
    "dropped": [CUT],
    "refused": [response(b'{"error":"busy"}', status="503 Busy")],
    "bomb": [response(LAST, extra=BOMB)],
    "bad chunk": [STREAM, b"zz\r\n", CUT],
    "no http": [b"SSH-2.0-OpenSSH_9.6\r\n", CUT],
}
LEAVING = ("leaves before", "leaves amid", "leaves endless")
"""What ends because the client goes; `before` the answer, `amid` it, or an endless one."""
UNHEARD = ("loris", "half body")
"""Clients that never say all of their request; there is nothing to pass on."""
KINDS = (*ANSWERS, *LEAVING, *UNHEARD, "corpus", "long header")


def answer(request: SeenRequest) -> Sequence[Step] | Iterator[Step]:
    """What the backend does with a request, which names it."""
    kind, _, name = orjson.loads(request.body)["prompt"].partition("/")
    if kind == "leaves endless":
        return _never()
    if kind == "leaves before":
        return [asyncio.Event()]
    if kind == "leaves amid":
        return [STREAM, *[chunk(LINE)] * LINES, asyncio.Event()]
    if kind == "corpus":
        return list(_corpus_steps(CORPUS / name))
    return ANSWERS.get(kind, ANSWERS["whole"])


@dataclass
class Storm:
    """What was done, and what came of it."""

    seed: int
    sent: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def owed(self) -> int:
        """Requests that must have left a record."""
        return sum(count for kind, count in self.sent.items() if kind not in UNHEARD)

    async def blow(self, url: str, requests: int, *, at_once: int) -> None:
        """Send so many requests of all kinds, so many at a time."""
        drawn = random.Random(self.seed)
        kinds = [drawn.choice(KINDS) for _ in range(requests)]
        places = asyncio.Semaphore(at_once)

        async def one(kind: str, where: float) -> None:
            async with places:
                await self.send(url, kind, where)

        await asyncio.gather(*(one(kind, drawn.random()) for kind in kinds))

    async def send(self, url: str, kind: str, where: float) -> None:
        """One request; `where` (0 to 1) picks its point of leaving, or its file."""
        self.sent[kind] += 1
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            async with asyncio.timeout(60):
                await self._talk(reader, writer, kind, where)
        except TimeoutError:
            self.wrong.append(f"{kind}: no end within 60 s")
        except ConnectionError as error:
            if kind != "long header":
                self.wrong.append(f"{kind}: {error!r}")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str, where: float
    ) -> None:
        file = CORPUS_FILES[int(where * len(CORPUS_FILES))]
        request = _request(kind, file.name if kind == "corpus" else "")
        if kind in UNHEARD:
            await _mumble(writer, request, kind, where)
            return
        writer.write(request)
        if kind == "leaves before":
            await asyncio.sleep(where * 0.05)
        elif kind == "leaves amid":
            await reader.readexactly(1 + int(where * LINES * len(LINE)))
        elif kind == "leaves endless":
            await reader.readexactly(1 + int(where * 50_000))
        else:
            answer = await reader.read(-1)
            if (fault := _fault(kind, answer, file)) is not None:
                self.wrong.append(f"{kind}: {fault}")


def _request(kind: str, name: str) -> bytes:
    body = orjson.dumps({"model": "m", "prompt": f"{kind}/{name}"})
    extra = b"X-Long: " + b"l" * 60_000 + b"\r\n" if kind == "long header" else b""
    head = b"POST /api/generate HTTP/1.1\r\nHost: g\r\nConnection: close\r\n" + extra
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def _mumble(writer: asyncio.StreamWriter, request: bytes, kind: str, where: float) -> None:
    """Say a part of the request in small pieces, wait, and go."""
    head = request.index(b"\r\n\r\n") + 4
    end = head - 3 if kind == "loris" else len(request) - 1
    for start in range(0, end, 16):
        writer.write(request[start : min(start + 16, end)])
        await writer.drain()
    await asyncio.sleep(where * 0.05)


def _corpus_steps(file: Path) -> Iterator[Step]:
    yield stream_head(TYPES[file.suffix])
    data = file.read_bytes()
    drawn = random.Random(len(data))
    while data:
        size = drawn.randint(1, 40)
        yield chunk(data[:size])
        data = data[size:]
    yield chunk(b"")


def _fault(kind: str, answer: bytes, file: Path) -> str | None:
    """What is wrong with an answer; None: it is what the backend gave."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ")[1:2]
    wanted = {"refused": b"503", "dropped": b"502", "bomb": b"502", "no http": b"502"}
    if kind == "bad chunk" and status == [b"502"]:
        # It came so soon that nothing had been passed on.
        return None
    if status != [wanted.get(kind, b"200")]:
        return f"status {status} of {answer[:80]!r}"
    whole = {"stream": LINE * LINES + LAST, "corpus": file.read_bytes()}.get(kind)
    if whole is not None and unchunked(body) != whole:
        return f"{file.name if kind == 'corpus' else kind} came as {body[:80]!r}"
    if kind in ("killed", "bad chunk") and body.endswith(b"0\r\n\r\n"):
        return "an end was made up"
    return None


def unchunked(body: bytes) -> bytes:
    """A chunked body without its framing, as far as it came."""
    data = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        data += rest[:length]
        body = rest[length + 2 :]
    return data
