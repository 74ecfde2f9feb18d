"""Work that reads many rows, in a process of its own: it gives way to meters, books and traffic.

The parent writes one Job as JSON to the child's stdin and passes on what comes from its stdout.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import IO

import orjson
from pydantic import BaseModel, Field

from melodi.api.questions import (
    CompareWanted,
    ExportWanted,
    SeriesWanted,
    StatsWanted,
    compare_answer,
    stats_answer,
)
from melodi.errors import MelodiError, StoreError
from melodi.store.database import open_engine
from melodi.store.figures import Rates
from melodi.store.queries import BadQuery
from melodi.store.records import RecordStore

_CHUNK_BYTES = 1 << 18
_START = "import os; os.setpgid(0, 0); os.nice(19); from melodi.api.apart import main; main()"
"""Gives way before it imports anything. Of its own is the group of processes alone, so that Ctrl-C
passes it by: where Linux groups tasks by session, niceness counts within a session only."""
_BAD_QUERY = 2
"""The child's exit status where the question was wrong, not the work."""


class Job(BaseModel):
    """What is to be done apart, asked at `now`."""

    question: SeriesWanted | StatsWanted | CompareWanted | ExportWanted
    now: datetime
    rates: Rates = Field(default_factory=Rates)


class _Order(BaseModel):
    """A job and where its records are."""

    url: str
    job: Job


async def apart(url: str, job: Job) -> AsyncGenerator[bytes]:
    """The bytes that answer `job` from the database at `url`, as they come.

    Raises StoreError or BadQuery with the child's own words where it fails. The child ends with
    whoever stops listening.
    """
    order = _Order(url=url, job=job).model_dump_json().encode()
    starting = asyncio.create_task(asyncio.to_thread(_start, order))
    try:
        child = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_drop)
        raise
    try:
        async with _reading(child.stdout) as stdout, _reading(child.stderr) as stderr:
            while chunk := await stdout.read(_CHUNK_BYTES):
                yield chunk
            talk = (await stderr.read()).decode(errors="replace").strip()
        if (code := await asyncio.to_thread(child.wait)) != 0:
            kind = BadQuery if code == _BAD_QUERY else StoreError
            raise kind(talk.rpartition("\n")[2] or "the work ended early; ask again")
    finally:
        child.kill()
        await asyncio.to_thread(child.wait)


def _start(order: bytes) -> "subprocess.Popen[bytes]":
    """A child with its order, started in whatever thread this is.

    An event loop's own way to start one may copy the tables of all of this process's memory, in
    which time no byte passes.
    """
    # -P: a folder that the daemon was started in must not bring its own modules.
    command = (sys.executable, "-P", "-c", _START)
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)  # noqa: S603  our own
    assert child.stdin is not None
    # By stdin, where nobody sees a password that the URL may hold.
    with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
        stdin.write(order)
    return child


def _drop(started: "asyncio.Task[subprocess.Popen[bytes]]") -> None:
    """End a child that nobody listens to."""
    if started.exception() is None:
        with started.result() as child:
            child.kill()


@contextlib.asynccontextmanager
async def _reading(pipe: IO[bytes] | None) -> AsyncGenerator[asyncio.StreamReader]:
    """What comes through a pipe, for this event loop to read."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        yield reader
    finally:
        transport.close()


def main() -> None:
    """In the child: do one job."""
    order = _Order.model_validate_json(sys.stdin.buffer.read())
    try:
        _do(order)
    except MelodiError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_BAD_QUERY if isinstance(error, BadQuery) else 1)


def _do(order: _Order) -> None:
    question, now = order.job.question, order.job.now
    if isinstance(question, ExportWanted):
        from melodi.datasets.export import export_to

        export_to(order.url, sys.stdout.buffer, question.to_export(now))
        return
    engine = open_engine(order.url)
    store = RecordStore(engine)
    if isinstance(question, CompareWanted):
        answer = compare_answer(store, question.to_query(now))
    else:
        answer = stats_answer(store, question.to_query(now), rates=order.job.rates)
    engine.dispose()
    sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_UTC_Z))
