"""What a dead daemon left is closed before the next one begins."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from energy_records import make_record
from structlog.testing import capture_logs
from waiting import until

from melodi.clock import SystemClock
from melodi.daemon.recovery import recover
from melodi.daemon.serve import Served, served
from melodi.energy.record import EnergyRecord, Quality, Status
from melodi.inference.timeline import RequestTimeline
from melodi.store.database import open_engine
from melodi.store.migrate import upgrade
from melodi.store.queries import RequestFilter
from melodi.store.records import Batch, RecordStore
from melodi.store.spool import Begun, Spool

CLOCK = SystemClock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RecordStore]:
    """An empty store."""
    url = f"sqlite:///{tmp_path}/melodi.db"
    upgrade(url)
    engine = open_engine(url)
    yield RecordStore(engine)
    engine.dispose()


def leave(folder: Path, *ids: str) -> None:
    """Leave begin lines as a process without a row for them does."""
    spool = Spool(folder)
    spool.write(
        [Begun(id=id_, host="here", backend="b", backend_kind="vllm", wall_ns=0) for id_ in ids]
    )
    with capture_logs():
        spool.close()


def kept(store: RecordStore) -> dict[str, tuple[Status, Quality, bool]]:
    """What is stored of each request."""
    records: tuple[EnergyRecord, ...] = store.page(RequestFilter()).items
    return {one.id: (one.status, one.quality, one.provisional) for one in records}


def test_lines_and_rows_become_one_final_record_each(store: RecordStore, tmp_path: Path) -> None:
    """A row is closed as a gap, a line without one as interrupted, and then the files are gone."""
    done, left = make_record(1), make_record(2, provisional=True)
    store.apply([Batch(host="here", records=(done, left))])
    leave(tmp_path / "spool", done.id, left.id, "only-begun")
    with capture_logs() as logs:
        for _ in range(2):
            recover(store, tmp_path / "spool", host="here")
    assert kept(store) == {
        done.id: (Status.OK, Quality.MEASURED, False),
        left.id: (Status.OK, Quality.GAP, False),
        "only-begun": (Status.INTERRUPTED, Quality.NONE, False),
    }
    assert [(log["event"], log["count"]) for log in logs] == [("unfinished_records_closed", 2)]
    assert not list((tmp_path / "spool").iterdir())


def test_lines_that_cannot_be_read_do_not_stop_the_start(
    store: RecordStore, tmp_path: Path
) -> None:
    """The rows are closed all the same, and the log names the folder."""
    left = make_record(1, provisional=True)
    store.apply([Batch(host="here", records=(left,))])
    (tmp_path / "spool/1.begun").mkdir(parents=True)
    with capture_logs() as logs:
        recover(store, tmp_path / "spool", host="here")
    assert kept(store) == {left.id: (Status.OK, Quality.GAP, False)}
    assert logs[0]["event"] == "begin_lines_not_read"


def begin(daemon: Served) -> RequestTimeline:
    """A request that has begun and goes on."""
    now_ns = CLOCK.monotonic_ns()
    timeline = RequestTimeline(
        id="running",
        backend="sim",
        backend_kind="vllm",
        model="broken \ud800",
        wall_ns=CLOCK.wall_ns(),
        sent_ns=now_ns,
    )
    daemon.runtime.books.begin(timeline)
    return timeline


def files(folder: Path) -> list[Path]:
    """The spool's files that say something."""
    return [path for path in folder.glob("spool-*/*") if path.stat().st_size]


async def test_a_request_is_spooled_while_it_runs_and_forgotten_once_it_has_a_row(
    stage: Any, tmp_path: Path
) -> None:
    """The gauge tells how many; after an orderly stop no file is left."""
    async with served(stage.settings, clock=CLOCK, probes=stage.probes()) as daemon:
        books, spool = daemon.runtime.books, daemon.runtime.books._delivery.spool
        timeline = begin(daemon)
        await until(lambda: files(tmp_path))
        assert spool.records == 1
        timeline.end_ns, timeline.status = CLOCK.monotonic_ns(), Status.OK
        books.end(timeline)
        await until(lambda: not spool.records)
        assert daemon.runtime.store.get("running") is not None
    assert not files(tmp_path)


async def test_a_spool_that_cannot_be_written_is_a_fault_not_an_end(
    stage: Any, tmp_path: Path
) -> None:
    """Traffic goes on; `faults` says what to do."""
    async with served(stage.settings, clock=CLOCK, probes=stage.probes()) as daemon:
        folder = daemon.runtime.books._delivery.spool.folder
        folder.touch()
        timeline = begin(daemon)
        await until(lambda: any("begin lines" in one for one in daemon.runtime.faults()))
        folder.unlink()
        await until(lambda: not daemon.runtime.faults())
        timeline.end_ns, timeline.status = CLOCK.monotonic_ns(), Status.OK
        daemon.runtime.books.end(timeline)
    assert not files(tmp_path)
