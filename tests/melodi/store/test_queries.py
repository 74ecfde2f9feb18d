"""Pages of records and what they leave out."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from energy_records import START_NS, make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melodi.clock import to_datetime
from melodi.energy.record import EnergyRecord, Quality, Status
from melodi.store.queries import (
    BadQuery,
    RequestFilter,
    decode_cursor,
    encode_cursor,
    parse_tag,
    select_page,
)
from melodi.store.records import Batch, RecordStore

START = to_datetime(START_NS)
WORDS = ["a", "b", None]


def fill(store: RecordStore, records: list[EnergyRecord]) -> list[EnergyRecord]:
    """Store them; gives them as stored."""
    seqs = store.apply([Batch(host=r.host, records=(r,)) for r in records])
    return [replace(r, seq=seqs.get(r.id)) for r in records]


def read_all(store: RecordStore, wanted: RequestFilter, *, limit: int) -> list[EnergyRecord]:
    """Follow the cursors to the end."""
    page = store.page(wanted, limit=limit)
    items = list(page.items)
    while page.next_cursor is not None:
        assert len(page.items) == limit
        page = store.page(wanted, cursor=page.next_cursor, limit=limit)
        items += page.items
        assert len(items) < 1000, "the cursors lead nowhere"
    return items


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(starts=st.lists(st.integers(0, 3), min_size=1, max_size=12), limit=st.integers(1, 5))
def test_pages_give_every_record_once_and_newest_first(
    store: RecordStore, starts: list[int], limit: int
) -> None:
    """Pages of any size, records of the same moment among them, join to the whole in order."""
    host = make_record().id
    stored = fill(store, [make_record(start, host=host) for start in starts])
    expected = sorted(stored, key=lambda r: (r.started_at, r.id), reverse=True)
    assert read_all(store, RequestFilter(host=host), limit=limit) == expected


def test_records_that_arrive_while_one_pages_move_nothing(store: RecordStore) -> None:
    """A cursor is a place in time, not a count: newer records do not push older ones into view."""
    stored = fill(store, [make_record(n) for n in range(6)])
    first = store.page(RequestFilter(), limit=3)
    fill(store, [make_record(100)])
    second = store.page(RequestFilter(), cursor=first.next_cursor, limit=3)
    assert [*first.items, *second.items] == stored[::-1]
    assert second.next_cursor is None


def matches(record: EnergyRecord, wanted: RequestFilter) -> bool:
    """What a filter means, in plain words."""
    equal = ("backend", "model", "campaign", "task", "status", "quality")
    joules = record.energy_joules
    return (
        all(getattr(wanted, n) in (None, getattr(record, n)) for n in equal)
        and all(record.tags.get(name) == value for name, value in wanted.tags)
        and (wanted.since is None or record.started_at >= wanted.since)
        and (wanted.until is None or record.started_at < wanted.until)
        and (
            wanted.min_energy_joules is None
            or (joules is not None and joules >= wanted.min_energy_joules)
        )
        and (
            wanted.max_energy_joules is None
            or (joules is not None and joules <= wanted.max_energy_joules)
        )
    )


@st.composite
def varied(draw: st.DrawFn) -> EnergyRecord:
    """Records that differ in what filters look at."""
    return make_record(
        draw(st.integers(0, 4)),
        backend=draw(st.sampled_from(["a", "b"])),
        model=draw(st.sampled_from(WORDS)),
        campaign=draw(st.sampled_from(WORDS)),
        task=draw(st.sampled_from(WORDS)),
        status=draw(st.sampled_from([Status.OK, Status.ERROR])),
        quality=draw(st.sampled_from([Quality.MEASURED, Quality.GAP])),
        tags=draw(st.dictionaries(st.sampled_from(["k", "ü.x [0]"]), st.sampled_from("vw"))),
        energy_joules=draw(st.sampled_from([None, 0.0, 1.0, 2.0])),
    )


filters = st.builds(
    RequestFilter,
    backend=st.sampled_from(WORDS),
    model=st.sampled_from(WORDS),
    campaign=st.sampled_from(WORDS),
    task=st.sampled_from(WORDS),
    status=st.sampled_from([None, None, Status.OK]),
    quality=st.sampled_from([None, None, Quality.GAP]),
    tags=st.lists(
        st.tuples(st.sampled_from(["k", "ü.x [0]", "none"]), st.sampled_from("vw")), max_size=2
    ).map(tuple),
    since=st.none() | st.integers(0, 4).map(lambda n: START + timedelta(seconds=n)),
    until=st.none() | st.integers(0, 4).map(lambda n: START + timedelta(seconds=n)),
    min_energy_joules=st.sampled_from([None, None, 0.0, 1.0]),
    max_energy_joules=st.sampled_from([None, None, 0.0, 1.0]),
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=25,
)
@given(records=st.lists(varied(), max_size=8), wanted=st.lists(filters, min_size=4, max_size=4))
def test_a_filter_gives_what_it_says_and_nothing_else(
    store: RecordStore, records: list[EnergyRecord], wanted: list[RequestFilter]
) -> None:
    """Every filter picks exactly the records that its plain meaning picks."""
    host = make_record().id
    stored = fill(store, [replace(record, host=host) for record in records])
    for one in wanted:
        found = store.page(replace(one, host=host), limit=1000).items
        assert {r.id for r in found} == {r.id for r in stored if matches(r, one)}


@pytest.mark.parametrize(
    "wanted",
    [
        RequestFilter(),
        RequestFilter(since=START),
        RequestFilter(model="tiny"),
        RequestFilter(host="here", model="tiny"),
    ],
)
def test_common_pages_are_read_from_an_index(engine: sa.Engine, wanted: RequestFilter) -> None:
    """A page deep in the table is sought, never reached by scanning what comes before it."""
    cursor = encode_cursor(make_record())
    query = select_page(wanted, cursor=cursor, limit=50)
    text = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
            assert "SEARCH requests USING INDEX" in plan[0][3]
        else:
            # An empty table is scanned whatever its indices: have it look for one.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            lines = "".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {text}"))
            assert "Index Cond" in lines
            assert "Seq Scan" not in lines


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "aGVsbG8=", "MjAyNi0wMS0wMSB4"])
def test_a_damaged_cursor_is_refused(cursor: str) -> None:
    """What is no cursor of ours, a moment without a zone included, is said to be damaged."""
    with pytest.raises(BadQuery, match="start again without one"):
        decode_cursor(cursor)


def test_a_cursor_holds_its_place_to_the_microsecond() -> None:
    """Decoding gives what was encoded."""
    record = make_record(started_at=START + timedelta(microseconds=1))
    assert decode_cursor(encode_cursor(record)) == (record.started_at, record.id)


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_page_has_one_to_a_thousand_records(store: RecordStore, limit: int) -> None:
    """A limit outside is an error, not a surprise."""
    with pytest.raises(ValueError, match="1 to 1000"):
        store.page(RequestFilter(), limit=limit)


@pytest.mark.parametrize(
    ("text", "tag"),
    [("k=v", ("k", "v")), ("k:v", ("k", "v")), ("k=", ("k", "")), ("url:a=b", ("url", "a=b"))],
)
def test_a_tag_is_cut_at_its_first_sign(text: str, tag: tuple[str, str]) -> None:
    """Both spellings name the same tag; later signs belong to the value."""
    assert parse_tag(text) == tag


@pytest.mark.parametrize("text", ["", "k", "=v", ":", 'a"b=c', "a\\b=c"])
def test_what_is_no_tag_is_refused(text: str) -> None:
    """Text without a name, or with a name that cannot be looked for, is an error."""
    with pytest.raises(BadQuery):
        parse_tag(text)
