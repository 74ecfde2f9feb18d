"""The load generator: keeps connections busy, and notes when each byte that matters came.

python -m benchmarks.gateway.load: a cell as a JSON line on stdin, what came of it as one on stdout.
"""

import asyncio
import gc
import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

from benchmarks.gateway.wire import CHUNKS, HOST, MARK, request

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST = b"0\r\n\r\n"
_PATIENCE_SECONDS = 60
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Cell:
    """One load: so many connections, for so long, each sending its next request at once."""

    port: int
    connections: int
    seconds: float
    streamed: bool


@dataclass(frozen=True)
class Outcome:
    """What came of a cell; times in ms by the names of SHARES, None where nothing came."""

    requests: int
    failed: int
    disordered: int
    rate: float
    """Requests a second."""
    whole: dict[str, float] | None
    first: dict[str, float] | None
    chunk: dict[str, float] | None
    late: dict[str, float] | None


@dataclass
class Seen:
    """What came back; times in ns."""

    seconds: float = 0.0
    requests: int = 0
    failed: int = 0
    disordered: int = 0
    """Streams with chunks lost or in another order."""
    whole_ns: list[int] = field(default_factory=list)
    """From sending a request to the last byte of its answer."""
    first_ns: list[int] = field(default_factory=list)
    """From sending a request to its first chunk."""
    chunk_ns: list[int] = field(default_factory=list)
    """From a chunk's leaving the upstream to its arrival."""
    late_ns: list[int] = field(default_factory=list)
    """From when a chunk was due at the upstream to its arrival."""


class Caller(asyncio.Protocol):
    """One connection that sends a request as soon as the last one is answered."""

    def __init__(self, payload: bytes, seen: Seen, *, streamed: bool, ends: float) -> None:
        self._payload, self._seen, self._streamed, self._ends = payload, seen, streamed, ends
        self._transport: asyncio.Transport
        self._data = bytearray()
        self._read_to = 0
        self._marks: list[tuple[int, int, int, int]] = []
        self._sent_ns = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.done.done():
            self._seen.failed += 1
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._data += data
        if self._streamed:
            for mark in MARK.finditer(self._data, self._read_to):
                self._read_to = mark.end()
                number, due_ns, left_ns = map(int, mark.groups())
                self._marks.append((number, due_ns, left_ns, now_ns))
        if self._is_whole():
            self._take(now_ns)
            if time.monotonic() < self._ends:
                self._send()
            else:
                self.done.set_result(None)
                self._transport.close()

    def _send(self) -> None:
        self._data.clear()
        self._marks, self._read_to = [], 0
        self._sent_ns = time.monotonic_ns()
        self._transport.write(self._payload)

    def _is_whole(self) -> bool:
        if self._streamed and self._data.startswith(b"HTTP/1.1 200"):
            return self._data.endswith(_LAST)
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        length = _LENGTH.search(self._data, 0, end)
        size = int(length[1]) if length else 0
        return len(self._data) >= end + 4 + size

    def _take(self, now_ns: int) -> None:
        seen = self._seen
        seen.requests += 1
        seen.whole_ns.append(now_ns - self._sent_ns)
        if not self._data.startswith(b"HTTP/1.1 200"):
            seen.failed += 1
        elif self._streamed:
            self._take_marks()

    def _take_marks(self) -> None:
        seen = self._seen
        seen.disordered += [mark[0] for mark in self._marks] != list(range(CHUNKS))
        for number, due_ns, left_ns, came_ns in self._marks:
            if number == 0:
                seen.first_ns.append(came_ns - self._sent_ns)
            seen.chunk_ns.append(came_ns - left_ns)
            seen.late_ns.append(came_ns - due_ns)


async def run(cell: Cell) -> Seen:
    """Drive one cell to its end."""
    seen = Seen()
    payload = request(port=cell.port, streamed=cell.streamed)
    began = time.monotonic()
    ends = began + cell.seconds

    def caller() -> Caller:
        return Caller(payload, seen, streamed=cell.streamed, ends=ends)

    callers = await _connect(cell, caller)
    done = [one.done for one in callers]
    _, waiting = await asyncio.wait(done, timeout=cell.seconds + _PATIENCE_SECONDS)
    seen.failed += len(waiting)
    seen.seconds = time.monotonic() - began
    return seen


async def _connect(cell: Cell, caller: Callable[[], Caller]) -> Iterable[Caller]:
    """Streams begin spread over one pace, so that their chunks do not come in one burst."""
    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(cell.connections):
        _, protocol = await loop.create_connection(caller, HOST, cell.port)
        callers.append(protocol)
        if cell.streamed and cell.connections > 1:
            await asyncio.sleep(0.3 / cell.connections)
    return callers


def outcome(seen: Seen) -> Outcome:
    """The quantiles of what was seen."""
    return Outcome(
        requests=seen.requests,
        failed=seen.failed,
        disordered=seen.disordered,
        rate=seen.requests / seen.seconds,
        whole=quantiles(seen.whole_ns),
        first=quantiles(seen.first_ns),
        chunk=quantiles(seen.chunk_ns),
        late=quantiles(seen.late_ns),
    )


def quantiles(values_ns: list[int]) -> dict[str, float] | None:
    """By nearest rank, in ms."""
    if not values_ns:
        return None
    ordered = sorted(values_ns)
    last = len(ordered) - 1
    return {
        name: ordered[min(last, int(share * len(ordered)))] / 1e6 for name, share in SHARES.items()
    }


def main() -> None:
    # Its own pauses would be taken for those of whom it measures.
    gc.disable()
    for line in sys.stdin:
        seen = uvloop.run(run(Cell(**json.loads(line))))
        print(json.dumps(asdict(outcome(seen))), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
