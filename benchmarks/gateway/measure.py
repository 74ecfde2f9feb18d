"""Runs cells against candidates in turn, and keeps what each round found."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.gateway.candidates import Candidate
from benchmarks.gateway.load import Cell, Seen
from benchmarks.gateway.processes import REPOSITORY

ENOUGH_CPU_SECONDS = 1.0
NS_PER_MS = 1e6


@dataclass(frozen=True)
class Load:
    """One row of the tables: plain answers or paced streams, on so many connections."""

    connections: int
    streamed: bool


@dataclass(frozen=True)
class Figures:
    """What one candidate did with one load; times in ms."""

    requests: int
    failed: int
    disordered: int
    rate: float
    """Requests a second."""
    whole_p50: float
    whole_p99: float
    first_p50: float | None
    chunk_p50: float | None
    chunk_p99: float | None
    cpu_seconds: float

    @property
    def cpu_ms(self) -> float:
        """CPU time for one request."""
        return self.cpu_seconds / self.requests * 1000


class Driver:
    """The load generator's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def drive(self, cell: Cell) -> Seen:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(cell)) + "\n")
        self._process.stdin.flush()
        return Seen(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def driver() -> Iterator[Driver]:
    """A load generator in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gateway.load"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY) as process:
        yield Driver(process)
        process.terminate()


def figures(candidate: Candidate, load: Load, driver: Driver, *, seconds: float) -> Figures:
    """One cell; the CPU time holds what the requests left to do after their answers."""
    before = candidate.cpu_seconds
    cell = Cell(candidate.port, load.connections, seconds, load.streamed)
    seen = driver.drive(cell)
    candidate.settle()
    return Figures(
        requests=seen.requests,
        failed=seen.failed,
        disordered=seen.disordered,
        rate=seen.requests / seen.seconds,
        whole_p50=quantile(seen.whole_ns, 0.5),
        whole_p99=quantile(seen.whole_ns, 0.99),
        first_p50=quantile(seen.first_ns, 0.5) if seen.first_ns else None,
        chunk_p50=quantile(seen.chunk_ns, 0.5) if seen.chunk_ns else None,
        chunk_p99=quantile(seen.chunk_ns, 0.99) if seen.chunk_ns else None,
        cpu_seconds=candidate.cpu_seconds - before,
    )


def quantile(values_ns: Sequence[int], share: float) -> float:
    """By nearest rank, in ms."""
    ordered = sorted(values_ns)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / NS_PER_MS


def together(rounds: Sequence[Figures]) -> Figures:
    """The median of the rounds; requests, failures and CPU time are summed."""

    def middle(name: str) -> float | None:
        values = [getattr(one, name) for one in rounds]
        return None if None in values else median(values)

    sums = {
        name: sum(getattr(one, name) for one in rounds)
        for name in ("requests", "failed", "disordered", "cpu_seconds")
    }
    names = ("rate", "whole_p50", "whole_p99", "first_p50", "chunk_p50", "chunk_p99")
    return Figures(**sums, **{name: middle(name) for name in names})
