"""Kills a daemon under load again and again, and counts what became of every request."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from command import Shell, urls_said
from waiting import PATIENCE_SECONDS

from melodi.energy.record import EnergyRecord, Status
from melodi.store.database import open_engine
from melodi.store.queries import RequestFilter
from melodi.store.records import RecordStore

HOST = "killed"
DEVICE = "gpu:SIMULATED-0"
REQUESTS_PER_SECOND = 100
GRACE_SECONDS = 1.0
"""A request that entered longer than this before a kill must have a record."""
SHORT_TOKENS, LONG_TOKENS = 4, 150


@dataclass
class Life:
    """One life of the daemon: what was sent, what it acknowledged, when it was killed."""

    number: int
    ready_seconds: float
    """From its start until it answered."""
    sent: dict[str, float] = field(default_factory=dict)
    """When each request was sent, by its tag."""
    answered: int = 0
    slowest_seconds: float = 0.0
    """Of short requests: by then at the latest each had entered."""
    acknowledged: dict[str, int] = field(default_factory=dict)
    """The seqs that the API gave out, by request id."""
    killed_at: float = float("inf")

    def owed(self) -> set[str]:
        """The tags that must have a record."""
        last = self.killed_at - GRACE_SECONDS - self.slowest_seconds
        return {tag for tag, at in self.sent.items() if at < last}


@dataclass(frozen=True)
class Outcome:
    """What one life left in the database."""

    life: Life
    records: dict[str, list[EnergyRecord]]
    """By tag."""
    lost_acknowledged: int

    @property
    def missing(self) -> int:
        return sum(tag not in self.records for tag in self.life.owed())

    @property
    def twice(self) -> int:
        return sum(len(found) > 1 for found in self.records.values())

    @property
    def unfinished(self) -> int:
        return sum(record.seq is None for found in self.records.values() for record in found)

    @property
    def interrupted(self) -> int:
        found = Counter(record.status for records in self.records.values() for record in records)
        return found[Status.INTERRUPTED]

    @property
    def good(self) -> bool:
        return not (self.missing or self.twice or self.unfinished or self.lost_acknowledged)


@contextlib.contextmanager
def simulator() -> Iterator[str]:
    """A simulated backend in a process of its own; gives its URL."""
    command = [Path(sys.executable).with_name("melodi"), "simulate", "--kind", "vllm"]
    process = subprocess.Popen(
        [*command, "--port", "0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr is not None
        yield urls_said(process, "vllm")[0]
    finally:
        process.terminate()
        process.communicate()


def settle(folder: Path, backend_url: str) -> Shell:
    """A folder whose melodi.toml puts a gateway before that backend."""
    (folder / "melodi.toml").write_text(
        f'host = "{HOST}"\n[api]\nlisten = "127.0.0.1:0"\n'
        f'[database]\nurl = "sqlite:///{folder}/melodi.db"\n'
        f'[collectors]\nsimulated = "{backend_url}"\n'
        f'[[backends]]\nname = "sim"\nkind = "vllm"\nurl = "{backend_url}"\n'
        'listen = "127.0.0.1:0"\n'
    )
    return Shell(folder)


async def live_and_die(shell: Shell, number: int, seconds: float) -> Life:
    """Start the daemon, load it for so long or until requests are owed and final, kill it."""
    start = time.monotonic()
    with daemon(shell) as (process, urls):
        life = Life(number, time.monotonic() - start)
        async with clients(life, *urls):
            await asyncio.sleep(seconds)
            life.killed_at = time.monotonic()
            while not (life.owed() and life.acknowledged):
                await asyncio.sleep(0.1)
                life.killed_at = time.monotonic()
            process.kill()
            await asyncio.to_thread(process.wait)
    return life


def recover_and_stop(shell: Shell) -> None:
    """Start the daemon once more, and end it in order."""
    with daemon(shell) as (process, (api_url, _)):
        # Once it answers it also hears signals.
        urllib.request.urlopen(f"{api_url}/healthz", timeout=PATIENCE_SECONDS).close()
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0


@contextlib.contextmanager
def daemon(shell: Shell, **environment: str) -> "Iterator[tuple[subprocess.Popen[str], list[str]]]":
    """A daemon that answers: its process, and the URLs of its API and its gateway."""
    said: list[str] = []
    with shell.start("serve", **environment) as process:
        try:
            urls = urls_said(process, "api", "gateway")
            # A daemon whose words nobody takes would stop at its next one.
            reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
            reader.start()
            yield process, urls
        finally:
            process.kill()
        reader.join()
    with (shell.folder / "serve.log").open("a") as log:
        log.writelines(said)


@contextlib.asynccontextmanager
async def clients(life: Life, api_url: str, gateway_url: str) -> AsyncIterator[None]:
    """Send at a steady rate, and watch the API, until the context ends."""
    tasks: set[asyncio.Task[None]] = set()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        tasks.add(asyncio.create_task(_send(life, session, gateway_url, tasks)))
        tasks.add(asyncio.create_task(_watch(life, session, api_url)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    for one in ended:
        if not isinstance(one, asyncio.CancelledError | aiohttp.ClientError | None):
            raise one


async def _send(
    life: Life, session: aiohttp.ClientSession, url: str, tasks: set[asyncio.Task[None]]
) -> None:
    start = time.monotonic()
    for number in range(1_000_000):
        tasks.add(asyncio.create_task(_post(life, session, url, number)))
        await asyncio.sleep(start + (number + 1) / REQUESTS_PER_SECOND - time.monotonic())


async def _post(life: Life, session: aiohttp.ClientSession, url: str, number: int) -> None:
    """One in five is long enough to be cut off, one in twenty a stream."""
    tag = f"{life.number}-{number}"
    tokens = LONG_TOKENS if number % 5 == 0 else SHORT_TOKENS
    body = {"model": "simulated", "prompt": tag, "max_tokens": tokens, "stream": number % 20 == 0}
    body |= {"min_tokens": tokens, "ignore_eos": True}
    life.sent[tag] = time.monotonic()
    headers = {"X-Melodi-Tags": f"k={tag}"}
    async with session.post(f"{url}/v1/completions", json=body, headers=headers) as answer:
        await answer.read()
        life.answered += answer.status == 200
    if tokens == SHORT_TOKENS:
        took = time.monotonic() - life.sent[tag]
        life.slowest_seconds = max(life.slowest_seconds, took)


async def _watch(life: Life, session: aiohttp.ClientSession, url: str) -> None:
    """Note what the API calls final; it stays acknowledged whatever happens next."""
    while True:
        async with session.get(f"{url}/v1/requests?limit=200") as answer:
            said = await answer.json()
            assert answer.status == 200, said
            for record in said["items"]:
                if not record["provisional"]:
                    life.acknowledged[record["id"]] = record["seq"]
        await asyncio.sleep(0.1)


def outcomes(folder: Path, lives: list[Life]) -> list[Outcome]:
    """What is in the database of each life; call it when no daemon runs."""
    records = stored(folder)
    seqs = {record.id: record.seq for record in records}
    by_life: dict[int, dict[str, list[EnergyRecord]]] = {life.number: {} for life in lives}
    for record in records:
        tag = record.tags["k"]
        by_life[int(tag.partition("-")[0])].setdefault(tag, []).append(record)
    return [
        Outcome(
            life,
            by_life[life.number],
            sum(seqs.get(id_) != seq for id_, seq in life.acknowledged.items()),
        )
        for life in lives
    ]


def stored(folder: Path) -> list[EnergyRecord]:
    """Every record in the folder's database."""
    with _store(folder) as store:
        page = store.page(RequestFilter(), limit=1000)
        found = list(page.items)
        while page.next_cursor is not None:
            page = store.page(RequestFilter(), cursor=page.next_cursor, limit=1000)
            found += page.items
    return found


def books_differ_by(folder: Path) -> float:
    """Joules on which records and ledger disagree, of those that the ledger served."""
    with _store(folder) as store:
        audit = store.audit(DEVICE, host=HOST)
    return audit.difference_joules / audit.served_ledger_joules


@contextlib.contextmanager
def _store(folder: Path) -> Iterator[RecordStore]:
    engine = open_engine(f"sqlite:///{folder}/melodi.db")
    try:
        yield RecordStore(engine)
    finally:
        engine.dispose()
