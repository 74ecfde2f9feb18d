"""The ledger as it is read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from energy_records import make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melodi.energy.accounts import MinuteAccounts
from melodi.store.records import Batch, RecordStore

MINUTE = 29_453_760
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def book(store: RecordStore, minute: int, *, host: str = "here", **amounts: Any) -> None:
    """Add to one minute of package:0."""
    accounts = MinuteAccounts(domain="package:0", minute=minute, **amounts)
    store.apply([Batch(host=host, minutes=(accounts,))])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    gains=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["a", "b"]), st.integers(0, 1000)), max_size=12
    ),
    cut=st.integers(0, 12),
)
def test_the_ledger_is_the_sum_of_what_was_booked(
    store: RecordStore, gains: list[tuple[int, str, int]], cut: int
) -> None:
    """However gains are cut into batches, each minute of each domain holds their sum."""
    host = make_record().id
    minutes = [
        MinuteAccounts(domain=domain, minute=MINUTE + minute, measured_joules=joules / 8)
        for minute, domain, joules in gains
    ]
    for part in (minutes[:cut], minutes[cut:]):
        store.apply([Batch(host=host, minutes=tuple(part))])
    expected: dict[tuple[str, datetime], float] = {}
    for minute, domain, joules in gains:
        key = (domain, BEGIN + timedelta(minutes=minute))
        expected[key] = expected.get(key, 0.0) + joules / 8
    lines = [line for line in store.ledger(by="minute") if line.host == host]
    assert {(line.domain, line.minute): line.measured_joules for line in lines} == expected


def test_the_residual_is_what_no_account_holds(store: RecordStore) -> None:
    """Measured joules less the six accounts; the tail is inside one of them."""
    book(
        store,
        MINUTE,
        measured_joules=100.0,
        active_joules=40.0,
        idle_share_joules=20.0,
        load_joules=10.0,
        idle_joules=5.0,
        foreign_joules=4.0,
        unattributed_joules=3.0,
        tail_joules=2.0,
        unmeasured_seconds=1.0,
    )
    (line,) = store.ledger()
    assert line.residual_joules == 18.0
    assert (line.tail_joules, line.unmeasured_seconds) == (2.0, 1.0)
    assert line.minute is None


@pytest.mark.parametrize(
    ("since_seconds", "until_seconds", "joules"),
    [(None, None, 7.0), (0, None, 7.0), (1, None, 6.0), (60, 120, 2.0), (60, 121, 6.0)],
)
def test_a_minute_counts_where_it_begins(
    store: RecordStore, since_seconds: int | None, until_seconds: int | None, joules: float
) -> None:
    """A minute belongs to a span if its first moment does."""
    for number, amount in enumerate((1.0, 2.0, 4.0)):
        book(store, MINUTE + number, measured_joules=amount)
    since, until = (
        None if seconds is None else BEGIN + timedelta(seconds=seconds)
        for seconds in (since_seconds, until_seconds)
    )
    assert [line.measured_joules for line in store.ledger(since=since, until=until)] == [joules]


def test_hosts_have_books_of_their_own(store: RecordStore) -> None:
    """The same domain name on two hosts is two domains."""
    for host, joules in (("here", 1.0), ("there", 2.0)):
        book(store, MINUTE, host=host, measured_joules=joules)
    assert {line.host: line.measured_joules for line in store.ledger()} == {
        "here": 1.0,
        "there": 2.0,
    }
