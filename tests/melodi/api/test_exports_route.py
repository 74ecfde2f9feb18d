"""`/v1/exports`: one file, from a process of its own."""

import asyncio
import io
import json
import os
from typing import Any

import psutil
import pytest
from energy_records import make_record
from pyarrow import csv, parquet
from starlette.testclient import TestClient
from waiting import until

from melodi.api.apart import Job, apart
from melodi.api.questions import ExportWanted
from melodi.clock import to_datetime
from melodi.errors import StoreError


@pytest.fixture
def ids(daemon: Any) -> list[str]:
    """The ids of five final records, oldest first, beside a provisional one."""
    records = [make_record(number) for number in range(5)]
    daemon.add(*reversed(records), make_record(9, provisional=True))
    return [record.id for record in records]


def test_each_format_is_streamed_as_a_file(client: TestClient, ids: list[str]) -> None:
    """Type and name are said; the records are there, oldest first, final ones only."""
    answers = {
        name: client.get(f"/v1/exports?format={name}") for name in ("parquet", "jsonl", "csv")
    }
    for name, answer in answers.items():
        assert answer.status_code == 200
        assert f'filename="records.{name}"' in answer.headers["content-disposition"]
    assert "parquet" in answers["parquet"].headers["content-type"]
    table = parquet.read_table(io.BytesIO(answers["parquet"].content))
    assert table["id"].to_pylist() == ids
    lines = [json.loads(line) for line in answers["jsonl"].text.splitlines()]
    assert [line["id"] for line in lines] == ids
    assert csv.read_csv(io.BytesIO(answers["csv"].content))["id"].to_pylist() == ids


def test_filters_choose_what_is_exported(client: TestClient, ids: list[str]) -> None:
    """As everywhere; provisional ones on request."""
    answer = client.get("/v1/exports?format=jsonl&min_energy_joules=4&provisional=true")
    assert [json.loads(line)["energy_joules"] for line in answer.text.splitlines()] == [4.0, 9.0]


@pytest.mark.parametrize("query", ["format=xlsx", "since=x", "by=model"])
def test_what_cannot_be_exported_is_refused(client: TestClient, query: str) -> None:
    """422 before anything is started."""
    assert client.get(f"/v1/exports?{query}").status_code == 422


def test_a_database_that_cannot_be_read_is_a_problem(client: TestClient, daemon: Any) -> None:
    """503 with the child's own words, not half a file."""
    daemon.url = "sqlite:////nowhere/melodi.db"
    answer = client.get("/v1/exports")
    assert answer.status_code == 503
    assert "there is no database" in answer.json()["detail"]


async def test_the_child_ends_with_whoever_stops_listening(daemon: Any, ids: list[str]) -> None:
    """Closing the stream early leaves no process and no error; a failure is told."""
    now = to_datetime(daemon.clock.wall_ns())
    before = psutil.Process().children()
    parts = apart(daemon.url, Job(question=ExportWanted(), now=now))
    assert (await anext(parts)).startswith(b"PAR1")
    assert psutil.Process().children() != before
    await parts.aclose()
    assert psutil.Process().children() == before
    with pytest.raises(StoreError, match="there is no database"):
        await anext(apart("sqlite:////no/x.db", Job(question=ExportWanted(), now=now)))


async def test_a_child_whose_listener_left_before_it_began_ends(daemon: Any) -> None:
    """It is started by a thread, which does not end with the task that asked for it."""
    before = psutil.Process().children()
    now = to_datetime(daemon.clock.wall_ns())
    asking = asyncio.create_task(anext(apart(daemon.url, Job(question=ExportWanted(), now=now))))
    await until(lambda: psutil.Process().children() != before)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: psutil.Process().children() == before)


async def test_the_child_gives_way_and_hears_no_ctrl_c(daemon: Any, ids: list[str]) -> None:
    """It is nicer before it does anything, in the daemon's own session: in another
    one Linux would give it as much of the processors as the daemon has."""
    parts = apart(daemon.url, Job(question=ExportWanted(), now=to_datetime(daemon.clock.wall_ns())))
    first = asyncio.create_task(anext(parts))
    nice: list[psutil.Process] = []

    def found() -> bool:
        nice[:] = [one for one in psutil.Process().children() if one.nice() == 19]
        return bool(nice)

    await until(found)
    (child,) = nice
    assert os.getsid(child.pid) == os.getsid(0)
    assert os.getpgid(child.pid) == child.pid
    await first
    await parts.aclose()
