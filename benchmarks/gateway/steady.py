"""What must hold for long: streams that nothing makes late, memory and descriptors that stay."""

import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmarks.export.__main__ import fill
from benchmarks.gateway.candidates import Candidate
from benchmarks.gateway.daemon import Daemon, daemon
from benchmarks.gateway.load import Cell, Outcome
from benchmarks.gateway.measure import Driver
from benchmarks.gateway.processes import descriptors, memory_bytes
from benchmarks.gateway.report import Target
from benchmarks.gateway.wire import HOST

STREAMS = 250
RECORDS = 1_000_000
MINUTE = 60.0
CONNECTIONS = 16
IDLE_SECONDS = 5.0
"""Connections to the backend are kept for three seconds without use."""
_STATS = "/v1/stats?by=model,backend"
_EXPORT = "/v1/exports?format=parquet"


def streams(driver: Driver, melodi: Candidate, upstream: int, *, seconds: float) -> list[Target]:
    """250 paced streams at once, straight and through MELODI."""
    straight = driver.drive(Cell(upstream, STREAMS, seconds, streamed=True))
    through = driver.drive(Cell(melodi.port, STREAMS, seconds, streamed=True))
    melodi.settle()
    return _lateness("250 paced streams", straight, through)


def streams_amid_export(
    folder: Path, driver: Driver, upstream: int, *, records: int, seconds: float
) -> list[Target]:
    """The same while the same daemon exports a million records and answers ten questions.

    `folder` may have the records from an earlier time.
    """
    if not (folder / "melodi.db").exists():
        fill(folder / "melodi.db", records)
    with daemon(folder, f"http://{HOST}:{upstream}") as melodi:
        straight = driver.drive(Cell(upstream, STREAMS, seconds, streamed=True))
        asking = Asking(melodi.api_url)
        asking.start()
        through = driver.drive(Cell(melodi.gateway_port, STREAMS, seconds, streamed=True))
        amid = asking.is_alive()
        asking.join()
    if not (amid or asking.exports):
        raise RuntimeError("the export ended in an error; see the daemon's log")
    what = f"250 paced streams amid {asking.exports} exports of {records:,} records and 10 stats"
    return _lateness(what, straight, through)


class Asking(threading.Thread):
    """One export after the next until ten questions have been answered, and one export at least."""

    def __init__(self, api_url: str) -> None:
        super().__init__()
        self._api_url = api_url
        self.exports = 0

    def run(self) -> None:
        questions = threading.Thread(target=self._ask)
        questions.start()
        while self.exports == 0 or questions.is_alive():
            self._read(_EXPORT)
            self.exports += 1
        questions.join()

    def _ask(self) -> None:
        for _ in range(10):
            self._read(_STATS)

    def _read(self, path: str) -> None:
        with urllib.request.urlopen(self._api_url + path, timeout=300) as answer:
            while answer.read(1 << 20):
                pass


def endurance(driver: Driver, melodi: Daemon, *, minutes: float) -> list[Target]:
    """A second of plain answers, as many as it can, and 14 of streams, in turn; what the daemon
    holds after the first minute and after the last."""
    # The first requests open connections to the backend and to the database.
    driver.drive(Cell(melodi.gateway_port, CONNECTIONS, 1.0, streamed=False))
    melodi.settle()
    time.sleep(IDLE_SECONDS)
    before = descriptors(melodi.process)
    ends = time.monotonic() + minutes * MINUTE
    first = 0.0
    while time.monotonic() < ends:
        for streamed, seconds in ((False, 1.0), (True, 14.0)):
            driver.drive(Cell(melodi.gateway_port, CONNECTIONS, seconds, streamed))
        if not first and time.monotonic() > ends - (minutes - 1) * MINUTE:
            melodi.settle()
            first = memory_bytes(melodi.process)
    melodi.settle()
    last = memory_bytes(melodi.process)
    time.sleep(IDLE_SECONDS)
    left = descriptors(melodi.process) - before
    return [
        Target(f"memory after {minutes:g} minutes, to that after the first", last / first, 1.05),
        Target("open descriptors more than before", left, 0, unit=""),
    ]


def _lateness(what: str, straight: Outcome, through: Outcome) -> list[Target]:
    assert straight.late is not None
    assert through.late is not None
    lost: Sequence[int] = (through.failed, through.disordered)
    return [
        Target(f"{what}: lost or out of order", sum(lost), 0, unit=f"of {through.requests}"),
        Target(
            f"{what}: p99.9 lateness, beyond {straight.late['p99.9']:.1f} ms straight",
            through.late["p99.9"] - straight.late["p99.9"],
            20,
            unit="ms",
        ),
    ]
