"""Statistics equal sums over the records, however these came and whichever way they are read."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from energy_records import make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melodi.energy.record import EnergyRecord, Quality, Status
from melodi.store.figures import Group, Rates
from melodi.store.histogram import ERROR_RATIO
from melodi.store.queries import BadQuery, RequestFilter
from melodi.store.records import Batch, RecordStore
from melodi.store.schema import rollups
from melodi.store.stats import StatsQuery, parse_by, read_stats, rows_to_read

START = datetime(2026, 1, 1, tzinfo=UTC)
COUNTED = (Quality.MEASURED, Quality.INTERPOLATED, Quality.ESTIMATED)

# Seconds and joules as clocks and meters tell them: nothing is finer than a billionth.
amounts = st.none() | st.integers(0, 10**15).map(lambda billionths: billionths / 1e9)
tokens = st.none() | st.integers(0, 5000)


def served(minute: float, **changes: Any) -> EnergyRecord:
    """A final record of a request sent so many minutes after the start of 2026."""
    plain = {"footprint": "gpu", "origin": "sensor", "policy": "time"}
    started_at = START + timedelta(minutes=minute)
    return replace(make_record(), **(plain | {"started_at": started_at} | changes))


records = st.builds(
    served,
    st.floats(0, 300),
    model=st.sampled_from(["a", "b", None]),
    quality=st.sampled_from(Quality),
    footprint=st.sampled_from(["gpu", "gpu+cpu"]),
    energy_joules=amounts,
    duration_seconds=amounts,
    time_to_first_token_seconds=amounts,
    input_tokens=tokens,
    output_tokens=tokens,
    prefill_joules=amounts,
)


def put(store: RecordStore, some: Iterable[EnergyRecord]) -> None:
    """Write them in one transaction."""
    store.apply([Batch(host="here", records=tuple(some))])


def empty(engine: sa.Engine) -> None:
    """Forget what the example before left."""
    with engine.begin() as connection:
        for name in ("rollups", "requests"):
            connection.exec_driver_sql(f"DELETE FROM {name}")


def ask(store: RecordStore, *by: str, rates: Rates | None = None, **wanted: Any) -> list[Group]:
    """The groups of what is wanted."""
    step = wanted.pop("step_seconds", None)
    query = StatsQuery(wanted=RequestFilter(**wanted), by=by, step_seconds=step)
    return store.ask(lambda one: read_stats(one, query, rates=rates or Rates()))


def close(value: float | None, expected: float | None) -> bool:
    """Equal but for the order of additions."""
    if value is None or expected is None:
        return value is expected
    return math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9)


def same(left: Any, right: Any) -> bool:
    """Two answers of flat(), but for the order of additions."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return close(left, right) if isinstance(left, float) else left == right


def plain(group: Group) -> dict[str, Any]:
    """A group as plain values."""
    from dataclasses import asdict

    return asdict(group)


on_one_store = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=25,
)


@on_one_store
@given(some=st.lists(records, max_size=12))
def test_statistics_are_sums_over_the_records(
    store: RecordStore, engine: sa.Engine, some: list[EnergyRecord]
) -> None:
    """Count, sum, mean and unknowns of every group equal those of its records."""
    empty(engine)
    put(store, some)
    groups = {(g.by["model"], g.footprint): g for g in ask(store, "model")}
    assert set(groups) == {(one.model, one.footprint) for one in some}
    for (model, footprint), group in groups.items():
        ours = [one for one in some if (one.model, one.footprint) == (model, footprint)]
        counted = [one for one in ours if one.quality in COUNTED]
        assert group.count == len(counted)
        assert sum(group.left_out.values()) == len(ours) - len(counted)
        known = [one.energy_joules for one in counted if one.energy_joules is not None]
        assert group.joules_per_request.known == len(known)
        assert close(group.joules_per_request.sum, sum(known) if known else None)
        both = [
            (one.energy_joules, one.output_tokens)
            for one in counted
            if one.energy_joules is not None and one.output_tokens
        ]
        ratio = sum(e for e, _ in both) / sum(t for _, t in both) if both else None
        assert close(group.joules_per_output_token.mean, ratio)
        if known:
            median = sorted(known)[(len(known) - 1) // 2]
            assert group.joules_per_request.p50 == pytest.approx(median, rel=ERROR_RATIO * 1.001)


@on_one_store
@given(
    some=st.lists(records, max_size=12),
    since=st.none() | st.integers(0, 300),
    length=st.none() | st.integers(0, 300),
)
def test_roll_ups_and_rows_tell_the_same(
    store: RecordStore,
    engine: sa.Engine,
    some: list[EnergyRecord],
    since: int | None,
    length: int | None,
) -> None:
    """Any period, ragged ends and all, gives what reading every row of it gives."""
    empty(engine)
    put(store, some)
    start = None if since is None else START + timedelta(minutes=since)
    end = None if length is None else (start or START) + timedelta(minutes=length)
    fast = ask(store, "model", since=start, until=end)
    # Status is in no roll-up, so that this one reads rows.
    slow = ask(store, "model", since=start, until=end, status=Status.OK)
    assert len(fast) == len(slow)
    assert all(same(plain(a), plain(b)) for a, b in zip(fast, slow, strict=True))


@on_one_store
@given(versions=st.lists(st.lists(records, min_size=3, max_size=3), min_size=1, max_size=3))
def test_a_revision_is_counted_once(
    store: RecordStore, engine: sa.Engine, versions: list[list[EnergyRecord]]
) -> None:
    """After any number of revisions only the last ones count, in the hours where they belong."""
    empty(engine)
    ids = [one.id for one in versions[0]]
    for number, batch in enumerate(versions):
        put(store, (replace(r, id=i, revision=number + 1) for r, i in zip(batch, ids, strict=True)))
    found = ask(store, "model", since=START)
    empty(engine)
    put(store, versions[-1])
    expected = ask(store, "model", since=START)
    assert len(found) == len(expected)
    assert all(same(plain(a), plain(b)) for a, b in zip(found, expected, strict=True))


def test_a_provisional_record_does_not_count_until_it_is_final(store: RecordStore) -> None:
    """It counts once, with its final energy, also when it is written again."""
    final = served(0, energy_joules=5.0)
    put(store, [replace(final, provisional=True, energy_joules=1.0)])
    assert ask(store) == []
    put(store, [final])
    put(store, [final])
    (group,) = ask(store)
    assert (group.count, group.joules_per_request.sum) == (1, 5.0)


def test_an_hour_without_records_has_no_row(store: RecordStore, engine: sa.Engine) -> None:
    """A revision that moves the only record of an hour elsewhere leaves nothing behind."""
    first = served(0)
    put(store, [first])
    put(store, [replace(first, revision=2, quality=Quality.GAP)])
    with engine.connect() as connection:
        rows = connection.execute(sa.select(rollups.c.quality, rollups.c["count"])).all()
    assert [tuple(row) for row in rows] == [("gap", 1)]


def test_origins_and_footprints_are_never_mixed(store: RecordStore) -> None:
    """Without any grouping there is still one item for each origin and footprint."""
    put(store, [served(0), served(0, origin="simulator"), served(0, footprint="gpu+cpu")])
    found = {(group.origin, group.footprint) for group in ask(store)}
    assert found == {("sensor", "gpu"), ("simulator", "gpu"), ("sensor", "gpu+cpu")}


def test_doubtful_qualities_are_left_out_and_counted(store: RecordStore) -> None:
    """One of each: three count, an estimate says so, three are left out; asking overrides."""
    put(store, [served(0, quality=quality, energy_joules=2.0) for quality in Quality])
    (group,) = ask(store)
    assert group.qualities == {"estimated": 1, "interpolated": 1, "measured": 1}
    assert group.left_out == {"gap": 1, "none": 1, "sub_sensor": 1}
    assert group.joules_per_request.sum == 6.0
    (asked,) = ask(store, quality=Quality.GAP)
    assert (asked.qualities, asked.left_out) == ({"gap": 1}, {})


def test_unknown_is_none_and_zero_is_zero(store: RecordStore) -> None:
    """What nobody knows has no sum; what was nothing has the sum 0."""
    put(store, [served(0, energy_joules=None, gpu_joules=0.0)])
    (group,) = ask(store)
    assert group.joules_per_request.sum is None
    assert group.joules_per_request.p50 is None
    assert group.watt_hours is None
    assert (group.gpu_joules.sum, group.gpu_joules.known) == (0.0, 1)


def test_money_and_carbon_need_somebody_to_say_their_rates(store: RecordStore) -> None:
    """7.2 kJ are 2 Wh; at 400 g and 0.30 a kWh, 0.8 g and 0.0006; per million tokens likewise."""
    put(store, [served(0, energy_joules=7200.0, input_tokens=300, output_tokens=700)])
    (bare,) = ask(store)
    assert bare.watt_hours == pytest.approx(2.0)
    assert (bare.grams_co2e, bare.cost, bare.cost_per_million_tokens) == (None, None, None)
    (priced,) = ask(store, rates=Rates(grams_per_kwh=400.0, price_per_kwh=0.3))
    assert priced.grams_co2e == pytest.approx(0.8)
    assert priced.cost == pytest.approx(0.0006)
    assert priced.watt_hours_per_million_tokens == pytest.approx(2000.0)
    assert priced.cost_per_million_tokens == pytest.approx(0.6)


@pytest.mark.parametrize("step_seconds", [60, 3600, 7200])
def test_buckets_begin_at_whole_steps(store: RecordStore, step_seconds: int) -> None:
    """From rows or from roll-ups, each record is in the bucket where it began."""
    some = [served(minute, energy_joules=1.0) for minute in (0, 0.5, 61, 119, 125, 240)]
    put(store, some)
    groups = ask(store, since=START, step_seconds=step_seconds)
    counts: dict[datetime, int] = {}
    for one in some:
        seconds = int(one.started_at.timestamp() // step_seconds) * step_seconds
        moment = datetime.fromtimestamp(seconds, tz=UTC)
        counts[moment] = counts.get(moment, 0) + 1
    assert {group.started_at: group.count for group in groups} == counts
    assert [group.started_at for group in groups] == sorted(counts)


def test_too_many_buckets_are_refused(store: RecordStore) -> None:
    """A second each over a year is no series."""
    with pytest.raises(BadQuery, match="longer step"):
        ask(store, since=START, until=START + timedelta(days=365), step_seconds=1)


@pytest.mark.parametrize(
    ("by", "wanted", "rows", "of_each"),
    [
        ((), {}, 2, 1),
        (("model",), {"since": START}, 2, 1),
        (("model",), {"since": START + timedelta(minutes=30)}, 2 + 1, 2),
        (("task",), {}, 4, 1),
        ((), {"campaign": "c"}, 0, 0),
        ((), {"min_energy_joules": 0.0}, 4, 1),
    ],
)
def test_few_rows_are_read(
    store: RecordStore, by: Sequence[str], wanted: dict[str, Any], rows: int, of_each: int
) -> None:
    """A roll-up for each whole hour, those of the ragged end, all where roll-ups cannot tell."""
    put(store, [served(minute, energy_joules=1.0) for minute in (10, 40, 50, 130)])
    query = StatsQuery(wanted=RequestFilter(**wanted), by=tuple(by))
    assert store.ask(lambda one: rows_to_read(one, query, limit=100)) == rows
    assert store.ask(lambda one: rows_to_read(one, query, limit=1)) == of_each


def test_an_unknown_grouping_is_refused_with_the_known_ones() -> None:
    """The message lists what there is; blanks and repetitions do not matter."""
    assert parse_by(" model, backend,model") == ("model", "backend")
    with pytest.raises(BadQuery, match="host, backend, model"):
        parse_by("color")


def test_absurd_values_do_not_spoil_a_sum(store: RecordStore) -> None:
    """What overflows is unknown here, and can be taken away again."""
    first = served(0, energy_joules=1.7e308)
    put(store, [first, served(0, energy_joules=1.0)])
    put(store, [replace(first, revision=2, energy_joules=2.0)])
    (group,) = ask(store)
    assert group.joules_per_request.sum == 3.0
