"""The thread that writes."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from energy_records import make_record
from structlog.testing import capture_logs
from waiting import PATIENCE_SECONDS, wait_for

from melodi.energy.accounts import MinuteAccounts
from melodi.errors import StoreError
from melodi.store.queries import RequestFilter
from melodi.store.records import Batch, RecordStore
from melodi.store.writer import RecordWriter

AWAY = sa.exc.OperationalError("INSERT", None, Exception("disk I/O error"))


def batch(number: int = 0, *, model: str = "tiny") -> Batch:
    """One final record."""
    return Batch(host="here", records=(make_record(number, model=model),))


class FakeStore:
    """Keeps batches in memory; can be held, be away, and refuse a batch."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.away = False
        self.groups: list[list[Batch]] = []
        self.attempts = 0

    def apply(self, batches: list[Batch]) -> dict[str, int]:
        self.attempts += 1
        self.entered.set()
        assert self.open.wait(PATIENCE_SECONDS)
        if self.away:
            raise AWAY
        if any(record.model == "bad" for one in batches for record in one.records):
            raise ValueError("a record that cannot be written")
        self.groups.append(batches)
        return {r.id: n for n, one in enumerate(batches) for r in one.records}


@pytest.fixture
def fake() -> FakeStore:
    """A store to be made to fail."""
    return FakeStore()


@pytest.fixture
def writer(fake: FakeStore) -> Iterator[RecordWriter]:
    """A writer to it, with room for ten."""
    writer = RecordWriter(fake, bound=10)
    yield writer
    fake.away = False
    fake.open.set()
    writer.close(PATIENCE_SECONDS)


def hold(fake: FakeStore, writer: RecordWriter) -> None:
    """Have the store busy with a first batch, so that what follows queues up."""
    fake.open.clear()
    writer.submit(batch())
    assert fake.entered.wait(PATIENCE_SECONDS)


def test_what_is_written_is_stored_when_its_future_says_so(store: RecordStore) -> None:
    """Each future gives the seqs of its own batch, and by then the rows can be read."""
    writer = RecordWriter(store)
    batches = [batch(number) for number in range(20)]
    written = [writer.submit(one) for one in batches]
    for number, (one, future) in enumerate(zip(batches, written, strict=True), start=1):
        (record,) = one.records
        assert future.result(10) == {record.id: number}
        assert store.get(record.id) is not None
    writer.close(PATIENCE_SECONDS)


def test_what_queues_up_is_written_together_and_in_order(
    fake: FakeStore, writer: RecordWriter
) -> None:
    """Batches that come while the store is busy share the next transaction."""
    hold(fake, writer)
    batches = [batch(number) for number in range(5)]
    written = [writer.submit(one) for one in batches]
    fake.open.set()
    for future in written:
        future.result(10)
    assert fake.groups[1:] == [batches]


def test_submitting_never_waits_for_the_store(fake: FakeStore, writer: RecordWriter) -> None:
    """While the store hangs, batches are taken at once and counted as pending."""
    hold(fake, writer)
    futures = [writer.submit(batch(number)) for number in range(5)]
    assert writer.pending == 6
    assert not any(future.done() for future in futures)


def test_over_the_bound_the_new_are_refused_and_the_old_kept(
    fake: FakeStore, writer: RecordWriter
) -> None:
    """A full writer says so in the future and in its count, and writes what it had taken."""
    hold(fake, writer)
    taken = [writer.submit(batch(number)) for number in range(9)]
    refused = writer.submit(batch(99))
    with pytest.raises(StoreError, match="10 batches wait to be written; see to the database"):
        refused.result(0)
    assert writer.lost == 1
    fake.open.set()
    assert all(future.result(10) for future in taken)


def test_a_database_that_is_away_costs_nothing_but_time(
    fake: FakeStore, writer: RecordWriter
) -> None:
    """While it fails the batches wait and the fault is told; when it is back all are written."""
    fake.away = True
    with capture_logs() as logs:
        written = [writer.submit(batch(number)) for number in range(3)]
        wait_for(lambda: fake.attempts > 2)
        assert (writer.fault, writer.pending, writer.lost) == ("disk I/O error", 3, 0)
        fake.away = False
        for future in written:
            future.result(10)
    assert (writer.fault, writer.pending, writer.lost) == (None, 0, 0)
    assert [log["event"] for log in logs] == ["store_failing", "store_recovered"]


def test_a_real_database_that_comes_back_gets_every_batch_once(
    store: RecordStore, engine: sa.Engine
) -> None:
    """A table that vanishes and returns leaves neither a hole nor a joule booked twice."""
    writer = RecordWriter(store)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE ledger_minutes RENAME TO gone")
    minute = MinuteAccounts(domain="package:0", minute=1, measured_joules=2.0)
    record = make_record()
    written = writer.submit(Batch(host="here", records=(record,), minutes=(minute,)))
    wait_for(lambda: writer.fault is not None)
    assert "ledger_minutes" in (writer.fault or "")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO ledger_minutes")
    assert written.result(10) == {record.id: 1}
    writer.close(PATIENCE_SECONDS)
    assert [line.measured_joules for line in store.ledger()] == [2.0]


def test_a_commit_whose_answer_was_lost_is_not_done_twice(
    store: RecordStore, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection dies between commit and answer: the retry finds it done, and says the seqs."""
    commit, died = engine.dialect.do_commit, threading.Event()

    def commit_and_die(connection: Any) -> None:
        commit(connection)
        if not died.is_set():
            died.set()
            connection.dbapi_connection.close()
            raise engine.dialect.loaded_dbapi.OperationalError("the connection is gone")

    monkeypatch.setattr(engine.dialect, "do_commit", commit_and_die)
    writer = RecordWriter(store)
    minute = MinuteAccounts(domain="package:0", minute=1, measured_joules=2.0)
    records = [make_record(number) for number in range(2)]
    with capture_logs() as logs:
        written = [
            writer.submit(Batch(host="here", records=(one,), minutes=(minute,))) for one in records
        ]
        assert [future.result(10) for future in written] == [
            {one.id: number} for number, one in enumerate(records, start=1)
        ]
        writer.close(PATIENCE_SECONDS)
    assert died.is_set()
    assert [log["event"] for log in logs] == ["store_failing", "store_recovered"]
    assert [line.measured_joules for line in store.ledger()] == [4.0]


def test_a_bad_batch_fails_alone(fake: FakeStore, writer: RecordWriter) -> None:
    """Its future holds the error, the log names its records, and its neighbours are written."""
    hold(fake, writer)
    before, bad, after = batch(1), batch(2, model="bad"), batch(3)
    with capture_logs() as logs:
        written = [writer.submit(one) for one in (before, bad, after)]
        fake.open.set()
        assert written[0].result(10)
        with pytest.raises(ValueError, match="cannot be written"):
            written[1].result(10)
        written[2].result(10)
    assert [log["ids"] for log in logs] == [[bad.records[0].id]]
    assert (writer.fault, writer.lost, writer.pending) == (None, 1, 0)
    assert fake.groups[1:] == [[before], [after]]


def test_after_a_bad_batch_writing_in_groups_goes_on(fake: FakeStore, writer: RecordWriter) -> None:
    """Only those that shared the bad batch's transaction are written one by one."""
    hold(fake, writer)
    bad = [writer.submit(batch(2, model="bad")), writer.submit(batch(1))]
    fake.open.set()
    bad[1].result(10)
    fake.entered.clear()
    hold(fake, writer)
    batches = [batch(number) for number in range(4)]
    written = [writer.submit(one) for one in batches]
    fake.open.set()
    written[-1].result(10)
    assert fake.groups[-1] == batches


def test_real_bad_data_fails_alone(store: RecordStore) -> None:
    """A record that the database cannot hold does not keep the others out."""
    writer = RecordWriter(store)
    with capture_logs():
        good = [batch(1), batch(3)]
        bad = Batch(host="here", records=(make_record(generation={"seed": 2**70}),))
        written = [writer.submit(one) for one in (good[0], bad, good[1])]
        assert [written[0].result(10), written[2].result(10)] == [
            {good[0].records[0].id: 1},
            {good[1].records[0].id: 2},
        ]
        with pytest.raises((sa.exc.StatementError, TypeError), match="64-bit"):
            written[1].result(10)
    writer.close(PATIENCE_SECONDS)
    assert len(store.page(RequestFilter()).items) == 2


@pytest.mark.parametrize("dies", [False, True], ids=["steady", "dying"])
def test_a_bad_record_takes_nothing_with_it(
    store: RecordStore, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """Minutes and other records of its batch are stored once, even where an answer is lost."""
    commit, died = engine.dialect.do_commit, threading.Event()

    def commit_and_die(connection: Any) -> None:
        commit(connection)
        if dies and not died.is_set():
            died.set()
            connection.dbapi_connection.close()
            raise engine.dialect.loaded_dbapi.OperationalError("the connection is gone")

    monkeypatch.setattr(engine.dialect, "do_commit", commit_and_die)
    writer = RecordWriter(store)
    minute = MinuteAccounts(domain="package:0", minute=1, measured_joules=2.0)
    good = [make_record(number) for number in range(3)]
    bad = make_record(9, generation={"seed": 2**70})
    with capture_logs() as logs:
        records = (good[0], bad, good[1])
        written = writer.submit(Batch(host="here", records=records, minutes=(minute,)))
        after = writer.submit(Batch(host="here", records=(good[2],), minutes=(minute,)))
        assert written.result(10) == {good[0].id: 1, good[1].id: 2}
        assert after.result(10) == {good[2].id: 3}
        writer.close(PATIENCE_SECONDS)
    assert [log["ids"] for log in logs if log["event"] == "batch_rejected"] == [[bad.id]]
    assert (writer.lost, writer.pending, died.is_set()) == (1, 0, dies)
    assert {one.id for one in store.page(RequestFilter()).items} == {one.id for one in good}
    assert [line.measured_joules for line in store.ledger()] == [4.0]


def test_a_batch_of_which_nothing_can_be_stored_says_why(
    fake: FakeStore, writer: RecordWriter
) -> None:
    """Each of its records is named, and the first reason is the future's."""
    records = tuple(make_record(number, model="bad") for number in range(2))
    with capture_logs() as logs, pytest.raises(ValueError, match="cannot be written"):
        writer.submit(Batch(host="here", records=records)).result(10)
    assert [log["ids"] for log in logs] == [[one.id] for one in records]
    assert writer.submit(batch(3)).result(10)


def test_one_who_stops_waiting_does_not_stop_the_writing(
    fake: FakeStore, writer: RecordWriter
) -> None:
    """Cancelling a future changes nothing: the batch is written and the writer lives on."""
    hold(fake, writer)
    written = writer.submit(batch(1))
    assert not written.cancel()
    fake.open.set()
    written.result(10)
    writer.submit(batch(2)).result(10)


def test_closing_writes_what_waits(fake: FakeStore, writer: RecordWriter) -> None:
    """What was taken before the close is stored by its end; later batches are refused."""
    hold(fake, writer)
    written = [writer.submit(batch(number)) for number in range(4)]
    threading.Timer(0.02, fake.open.set).start()
    writer.close(PATIENCE_SECONDS)
    assert all(future.done() and not future.exception() for future in written)
    with pytest.raises(StoreError, match="closed"):
        writer.submit(batch()).result(0)


def test_closing_gives_a_database_that_is_away_its_time(
    fake: FakeStore, writer: RecordWriter
) -> None:
    """What the database takes back up before the close's time is over is written."""
    fake.away = True
    written = writer.submit(batch())
    closing = threading.Thread(target=writer.close, args=(10,))
    closing.start()
    attempts = fake.attempts
    wait_for(lambda: fake.attempts > attempts + 2)
    fake.away = False
    closing.join(10)
    assert written.result(0)
    assert writer.lost == 0


def test_closing_on_a_dead_database_ends_and_counts_the_lost(
    fake: FakeStore, writer: RecordWriter
) -> None:
    """After its time the close gives up: every future fails, and the log says how many."""
    fake.away = True
    with capture_logs() as logs:
        written = [writer.submit(batch(number)) for number in range(3)]
        writer.close(0.1)
    for future in written:
        with pytest.raises(StoreError, match="see to the database: disk I/O error"):
            future.result(0)
    assert (writer.lost, writer.pending) == (3, 0)
    assert [log["count"] for log in logs if log["event"] == "batches_lost"] == [3]
