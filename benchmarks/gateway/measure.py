"""Runs cells against candidates in turn, and puts the rounds together."""

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.gateway.candidates import Candidate
from benchmarks.gateway.load import Cell, Outcome
from benchmarks.gateway.processes import REPOSITORY

ENOUGH_CPU_SECONDS = 1.0
MOST_TURNS = 6


@dataclass(frozen=True)
class Load:
    """One row of the tables: plain answers or paced streams, on so many connections."""

    connections: int
    streamed: bool


@dataclass(frozen=True)
class Figures:
    """What one candidate did with one load: medians over the rounds, times in ms."""

    requests: int
    failed: int
    disordered: int
    rate: float
    """Requests a second."""
    p50: float
    p99: float
    first: float | None
    """To the first chunk, median."""
    chunk_p50: float | None
    """From a chunk's leaving the upstream to its arrival."""
    chunk_p99: float | None
    cpu_seconds: float

    @property
    def cpu_ms(self) -> float:
        """CPU time for one request."""
        return self.cpu_seconds / self.requests * 1000

    @property
    def has_cpu(self) -> bool:
        """Whether it used enough for a clock that ticks every 10 ms."""
        return self.cpu_seconds >= ENOUGH_CPU_SECONDS


class Driver:
    """The load generator's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def drive(self, cell: Cell) -> Outcome:
        """Run one cell to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(cell)) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def driver() -> Iterator[Driver]:
    """A load generator in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gateway.load"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY) as process:
        yield Driver(process)
        process.terminate()


class Tally:
    """The rounds of one candidate and one load."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.cpu_seconds = 0.0

    def run(self, candidate: Candidate, load: Load, driver: Driver, *, seconds: float) -> None:
        """One round; its CPU time holds what the requests left to do after their answers."""
        before = candidate.cpu_seconds
        cell = Cell(candidate.port, load.connections, seconds, load.streamed)
        self.outcomes.append(driver.drive(cell))
        candidate.settle()
        self.cpu_seconds += candidate.cpu_seconds - before

    def figures(self) -> Figures:
        """All rounds together; only their requests, failures and CPU time are summed."""
        ones = self.outcomes
        return Figures(
            requests=sum(one.requests for one in ones),
            failed=sum(one.failed for one in ones),
            disordered=sum(one.disordered for one in ones),
            rate=median(one.rate for one in ones),
            p50=_known(_middle(ones, "whole", "p50")),
            p99=_known(_middle(ones, "whole", "p99")),
            first=_middle(ones, "first", "p50"),
            chunk_p50=_middle(ones, "chunk", "p50"),
            chunk_p99=_middle(ones, "chunk", "p99"),
            cpu_seconds=self.cpu_seconds,
        )


def compare(
    candidates: Sequence[Candidate],
    loads: Sequence[Load],
    driver: Driver,
    *,
    rounds: int,
    seconds: float,
) -> dict[Load, dict[str, Figures]]:
    """Every candidate's figures for every load, the candidates in turn within each round.

    Those that have used less than a second of CPU time by then get more rounds; few connections'
    streams would need minutes, so their CPU time stays untold.
    """
    found: dict[Load, dict[str, Figures]] = {}
    for load in loads:
        tallies = {one.name: Tally() for one in candidates}
        for _ in range(rounds):
            for one in candidates:
                tallies[one.name].run(one, load, driver, seconds=seconds)
        for one in candidates:
            tally = tallies[one.name]
            while (
                one.process is not None
                and (load.connections > 16 or not load.streamed)
                and tally.cpu_seconds < ENOUGH_CPU_SECONDS
                and len(tally.outcomes) < MOST_TURNS
            ):
                tally.run(one, load, driver, seconds=seconds)
        found[load] = {name: tally.figures() for name, tally in tallies.items()}
        print(f"{load}: done", file=sys.stderr, flush=True)
    return found


def _known(value: float | None) -> float:
    """Where nothing was answered there is no time to tell, and no target is met."""
    return math.nan if value is None else value


def _middle(outcomes: Sequence[Outcome], what: str, share: str) -> float | None:
    values = [getattr(one, what) for one in outcomes]
    known = [value[share] for value in values if value is not None]
    return median(known) if known else None
