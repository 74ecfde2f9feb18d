"""The table of requests, cut into months by the range of its UUIDv7 ids."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from energy_records import make_record
from sqlalchemy.schema import CreateIndex, CreateTable

from melodi.energy.accounts import MinuteAccounts
from melodi.ids import new_id
from melodi.store.database import open_engine
from melodi.store.queries import RequestFilter
from melodi.store.records import Batch, RecordStore
from melodi.store.schema import requests


def first_id(month: int) -> str:
    """The smallest id of a month of 2026."""
    start = datetime(2026, month, 1, tzinfo=UTC)
    return new_id(int(start.timestamp()) * 1_000_000_000)[:13]


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    """A database whose requests lie in partitions: January, February, and whatever else."""
    engine = open_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE requests")
        table = str(CreateTable(requests).compile(engine)).rstrip()
        connection.exec_driver_sql(f"{table} PARTITION BY RANGE (id)")
        for index in requests.indexes:
            connection.execute(CreateIndex(index))
        for name, month in (("january", 1), ("february", 2)):
            span = f"FROM ('{first_id(month)}') TO ('{first_id(month + 1)}')"
            connection.exec_driver_sql(
                f"CREATE TABLE {name} PARTITION OF requests FOR VALUES {span}"
            )
        connection.exec_driver_sql("CREATE TABLE others PARTITION OF requests DEFAULT")
    yield engine
    engine.dispose()


def in_month(month: int, **changes: object) -> dict[str, object]:
    """The id and the start of a request in the middle of a month."""
    start = datetime(2026, month, 15, tzinfo=UTC)
    return {"id": new_id(int(start.timestamp()) * 1_000_000_000), "started_at": start} | changes


def test_writing_and_reading_need_nothing_that_partitions_forbid(engine: sa.Engine) -> None:
    """Each record lands in its month, is replaced there, and is numbered across months."""
    store = RecordStore(engine)
    records = [make_record(**in_month(month, provisional=True)) for month in (1, 2, 3)]
    minute = MinuteAccounts(domain="package:0", minute=1, measured_joules=1.0)
    store.apply([Batch(host="here", records=tuple(records), minutes=(minute,))])
    assert store.close_unfinished("here", ()) == 3
    for table, record in zip(("january", "february", "others"), records, strict=True):
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT id FROM {table}").scalars().all()
        assert rows == [record.id]
        assert not store.get(record.id).provisional
    page = store.page(RequestFilter(host="here"), limit=2)
    rest = store.page(RequestFilter(host="here"), cursor=page.next_cursor)
    assert [one.seq for one in (*page.items, *rest.items)] == [3, 2, 1]


def test_dropping_a_month_leaves_the_others_and_the_count(engine: sa.Engine) -> None:
    """Retention by partition: numbers go on where they were."""
    store = RecordStore(engine)
    for month in (1, 2):
        store.apply([Batch(host="here", records=(make_record(**in_month(month)),))])
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE january")
    assert [one.seq for one in store.page(RequestFilter()).items] == [2]
    last = make_record(**in_month(2))
    assert store.apply([Batch(host="here", records=(last,))]) == {last.id: 3}
