"""The contract of a store of records."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from energy_records import any_records, make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melodi.energy.accounts import MinuteAccounts
from melodi.energy.record import DomainEnergy, EnergyRecord, Quality, Status
from melodi.store.database import open_engine
from melodi.store.queries import RequestFilter
from melodi.store.records import Batch, Mark, RecordStore
from melodi.store.schema import rollups

on_one_store = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=40,
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def add(store: RecordStore, *records: EnergyRecord) -> dict[str, int]:
    """Apply each host's records as one batch."""
    hosts = dict.fromkeys(record.host for record in records)
    return store.apply(
        [Batch(host=h, records=tuple(r for r in records if r.host == h)) for h in hosts]
    )


def all_of(store: RecordStore) -> Sequence[EnergyRecord]:
    """What is stored, newest first."""
    return store.page(RequestFilter(), limit=1000).items


@on_one_store
@given(record=any_records())
def test_a_record_comes_back_as_it_was(store: RecordStore, record: EnergyRecord) -> None:
    """Every field of any record survives the store; only its seq is the store's to give."""
    seqs = add(store, record)
    assert store.get(record.id) == replace(record, seq=seqs.get(record.id))
    assert (record.id in seqs) is not record.provisional


def test_a_record_that_was_never_stored_is_none(store: RecordStore) -> None:
    """An unknown id gives None."""
    assert store.get("nobody") is None


def test_unknown_is_null_and_zero_is_zero(store: RecordStore, engine: sa.Engine) -> None:
    """What nobody measured is NULL in the table; what was measured as nothing is 0."""
    add(store, make_record(energy_joules=None, gpu_joules=0.0, scheduled_at=None))
    with engine.connect() as connection:
        row = connection.exec_driver_sql(
            "SELECT energy_joules, gpu_joules, scheduled_at FROM requests"
        ).one()
    assert tuple(row) == (None, 0.0, None)


@pytest.mark.parametrize("together", [True, False])
def test_a_final_record_replaces_a_provisional_one(store: RecordStore, together: bool) -> None:
    """The final record stands, whether it comes in the same transaction or later."""
    final = make_record(energy_joules=7.0)
    provisional = replace(final, provisional=True, energy_joules=3.0)
    groups = [[provisional, final]] if together else [[provisional], [final]]
    for group in groups:
        store.apply([Batch(host="here", records=(record,)) for record in group])
    assert all_of(store) == (replace(final, seq=1),)


@pytest.mark.parametrize("together", [True, False])
def test_a_provisional_record_never_replaces_a_final_one(
    store: RecordStore, together: bool
) -> None:
    """A late provisional record changes nothing and costs no number."""
    final = make_record(energy_joules=7.0)
    late = replace(final, provisional=True, energy_joules=3.0)
    groups = [[final, late]] if together else [[final], [late]]
    for group in groups:
        seqs = store.apply([Batch(host="here", records=(record,)) for record in group])
        assert seqs == {final.id: 1}
    assert all_of(store) == (replace(final, seq=1),)


def test_a_new_revision_keeps_the_number_and_an_old_one_is_refused(store: RecordStore) -> None:
    """Recomputing replaces the record under its seq; the older revision cannot come back."""
    first = make_record(energy_joules=1.0)
    second = replace(first, revision=2, energy_joules=2.0)
    for record in (first, second, first):
        assert add(store, record) == {first.id: 1}
    assert all_of(store) == (replace(second, seq=1),)


@on_one_store
@given(
    steps=st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6), min_size=1, max_size=6
    ),
)
def test_numbers_have_no_gaps_on_each_host(
    store: RecordStore, steps: list[list[tuple[int, bool]]]
) -> None:
    """However records come and come again, each host counts 1, 2, 3 in commit order."""
    marker = make_record().id
    people = [make_record(n, host=f"{marker}-{n % 2}", provisional=True) for n in range(10)]
    order: dict[str, list[str]] = {people[0].host: [], people[1].host: []}
    for step in steps:
        finished = {people[n].id for n, final in step if final}
        seqs = add(store, *(replace(people[n], provisional=not final) for n, final in step))
        for host, done in order.items():
            ours = {p.id for p in people if p.host == host}
            done.extend(
                id_ for id_ in sorted(finished & ours, key=seqs.__getitem__) if id_ not in done
            )
    for host, done in order.items():
        kept = [r for r in all_of_host(store, host) if r.seq is not None]
        assert {r.seq: r.id for r in kept} == dict(enumerate(done, start=1))


def all_of_host(store: RecordStore, host: str) -> Sequence[EnergyRecord]:
    """What is stored of one host."""
    return store.page(RequestFilter(host=host), limit=1000).items


def test_two_writers_at_once_leave_no_gap(url: str) -> None:
    """Stores with engines of their own wait for each other and number one after the other."""
    engines = [open_engine(url) for _ in range(3)]

    def write(engine: sa.Engine) -> None:
        store = RecordStore(engine)
        for number in range(30):
            add(store, make_record(number))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, engines))
    seqs = sorted(record.seq or 0 for record in all_of(RecordStore(engines[0])))
    for engine in engines:
        engine.dispose()
    assert seqs == list(range(1, 91))


def one_minute(joules: float) -> MinuteAccounts:
    """A gain of package:0."""
    return MinuteAccounts(domain="package:0", minute=9, measured_joules=joules)


def test_a_marked_batch_that_comes_again_changes_nothing(store: RecordStore) -> None:
    """Whoever tries again gets the same numbers, and no joule is booked twice."""
    batches = [
        Batch(
            host="here",
            records=(make_record(number),),
            minutes=(one_minute(2.0**number),),
            mark=Mark("me", number),
        )
        for number in range(4)
    ]
    first = store.apply(batches[:2])
    assert store.apply(batches[:2]) == first
    assert list(store.apply(batches).values()) == [1, 2, 3, 4]
    assert [line.measured_joules for line in store.ledger()] == [15.0]


def test_marks_of_another_writer_or_host_are_no_ones_own(store: RecordStore) -> None:
    """The same number means the same batch only of the same writer on the same host."""
    for host, writer in (("here", "a"), ("here", "b"), ("there", "b")):
        store.apply([Batch(host=host, minutes=(one_minute(1.0),), mark=Mark(writer, 1))])
    assert {line.host: line.measured_joules for line in store.ledger()} == {
        "here": 2.0,
        "there": 1.0,
    }


def test_batches_are_written_together_or_not_at_all(store: RecordStore) -> None:
    """One record that cannot be stored takes everything of its transaction with it."""
    good = make_record(1)
    naive = make_record(2, started_at=datetime(2026, 1, 1))  # noqa: DTZ001
    minute = MinuteAccounts(domain="package:0", minute=1, measured_joules=5.0)
    with pytest.raises(ValueError, match="no time zone"):
        store.apply(
            [
                Batch(host="here", records=(good,), minutes=(minute,)),
                Batch(host="here", records=(naive,)),
            ]
        )
    assert (all_of(store), store.ledger()) == ((), ())
    assert add(store, good) == {good.id: 1}


def test_a_batch_holds_one_host_only() -> None:
    """Records of another host are refused before anything is written."""
    with pytest.raises(ValueError, match="split it"):
        Batch(host="here", records=(make_record(host="there"),))


@pytest.mark.parametrize("count", [2500])
def test_a_batch_may_be_larger_than_a_query(store: RecordStore, count: int) -> None:
    """Many records at once are stored and numbered like few."""
    records = [make_record(number) for number in range(count)]
    assert list(add(store, *records).values()) == list(range(1, count + 1))
    assert add(store, *records) == {r.id: n for n, r in enumerate(records, start=1)}


def test_batches_of_any_size_are_written_with_few_statements(
    store: RecordStore, engine: sa.Engine
) -> None:
    """The driver keeps each prepared, of up to 0.1 MB: with one for each size it took 8 MB."""
    seen = set()

    @sa.event.listens_for(engine, "before_cursor_execute")
    def note(*call: object) -> None:
        seen.add(call[2])

    for count in range(1, 71):
        add(store, *(make_record(number) for number in range(count)))
    assert len(seen) < 25


def test_what_a_batch_takes_does_not_grow_with_what_is_stored(sqlite_url: str) -> None:
    """By the instructions that SQLite runs for it: it reads no table from begin to end."""
    engine = open_engine(sqlite_url)
    store, ticks = RecordStore(engine), 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    def watch(connection: Any, *_: object) -> None:
        connection.set_progress_handler(tick, 100)

    sa.event.listen(engine, "checkout", watch)
    taken = []
    for last in (300, 3_000):
        add(store, *(make_record(number) for number in range(last)))
        ticks = 0
        add(store, make_record(last))
        taken.append(ticks)
    engine.dispose()
    assert 0 < taken[1] < 2 * taken[0]


def test_a_revision_of_more_than_one_question_finds_all_that_is_stored(store: RecordStore) -> None:
    """However many ids are asked for, each is found, and none counted twice."""
    records = [make_record(number) for number in range(517)]
    add(store, *records)
    store.revise(Batch(host="here", records=tuple(replace(one, revision=2) for one in records)))
    assert {one.revision for one in all_of(store)} == {2}
    assert (
        store.ask(lambda c: c.execute(sa.select(sa.func.sum(rollups.c["count"]))).scalar()) == 517
    )


def test_what_a_dead_daemon_left_becomes_final_and_says_why(store: RecordStore) -> None:
    """What is provisional ends as a gap, numbered; other hosts are left alone."""
    done = make_record(1)
    left = make_record(2, provisional=True, status=Status.INTERRUPTED, quality_reasons=("late",))
    other = make_record(3, provisional=True, host="there")
    add(store, done, left, other)
    assert (store.close_unfinished("here", ()), store.close_unfinished("here", ())) == (1, 0)
    assert store.get(left.id) == replace(
        left,
        provisional=False,
        seq=2,
        quality=Quality.GAP,
        quality_reasons=("late", "daemon_stopped"),
    )
    assert store.get(done.id) == replace(done, seq=1)
    assert store.get(other.id) == other


def test_what_had_only_begun_is_added_once(store: RecordStore) -> None:
    """A request that has a row keeps it; the others get the record that was kept for them."""
    done, left = make_record(1), make_record(2, provisional=True)
    add(store, done, left)
    begun = [
        make_record(number, id=id_, status=Status.INTERRUPTED, quality=Quality.NONE)
        for number, id_ in enumerate((done.id, left.id, make_record(3).id))
    ]
    assert [store.close_unfinished("here", begun) for _ in range(2)] == [2, 0]
    found = {r.id: (r.status, r.quality, r.seq) for r in all_of(store)}
    assert found == {
        done.id: (Status.OK, Quality.MEASURED, 1),
        left.id: (Status.OK, Quality.GAP, 2),
        begun[2].id: (Status.INTERRUPTED, Quality.NONE, 3),
    }


def test_pruned_records_do_not_start_the_count_again(store: RecordStore, engine: sa.Engine) -> None:
    """A number once given is never given again, even when its record is gone."""
    add(store, make_record(1), make_record(2))
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM requests")
    third = make_record(3)
    assert add(store, third) == {third.id: 3}


def with_domain(record: EnergyRecord, **amounts: float) -> EnergyRecord:
    """The record with joules in package:0."""
    return replace(
        record, domains={"package:0": DomainEnergy(scope="package", source="rapl", **amounts)}
    )


def test_the_audit_agrees_until_a_joule_is_booked_twice(store: RecordStore) -> None:
    """Records and ledger of one domain agree, and the audit tells when they stop to."""
    split = with_domain(
        make_record(1), joules=5.0, active_joules=3.0, idle_share_joules=2.0, load_joules=1.0
    )
    undivided = with_domain(make_record(2), joules=4.0)
    elsewhere = with_domain(make_record(3, host="there"), joules=99.0)
    minute = MinuteAccounts(
        domain="package:0", minute=9, active_joules=7.0, idle_share_joules=2.0, load_joules=1.0
    )
    store.apply([Batch(host="here", records=(split, undivided), minutes=(minute,))])
    store.apply([Batch(host="there", records=(elsewhere,))])
    audit = store.audit("package:0", host="here")
    assert (audit.served_records_joules, audit.served_ledger_joules) == (9.0, 9.0)
    assert (audit.load_records_joules, audit.load_ledger_joules) == (1.0, 1.0)
    assert audit.difference_joules == 0.0
    again = MinuteAccounts(domain="package:0", minute=10, active_joules=1.0, load_joules=-1.0)
    store.apply([Batch(host="here", minutes=(again,))])
    assert store.audit("package:0", host="here").difference_joules == 2.0


def test_an_audit_leaves_provisional_records_out(store: RecordStore) -> None:
    """The ledger holds closed bins only, so records still being reckoned do not count."""
    add(store, with_domain(make_record(provisional=True), joules=5.0))
    assert store.audit("package:0", host="here").served_records_joules == 0.0
