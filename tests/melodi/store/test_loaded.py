"""The ledger by model: what keeping models loaded costs, in lines that add up."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from energy_records import make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melodi.energy.accounts import AMOUNTS, MinuteAccounts
from melodi.energy.record import DomainEnergy
from melodi.store.books import LedgerLine
from melodi.store.loaded import LoadedMinute
from melodi.store.records import Batch, RecordStore

MINUTE = 29_453_760
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
GPU = "gpu:a"
GB = 10**9


def book(store: RecordStore, *, minute: int = MINUTE, host: str = "here", **amounts: float) -> None:
    accounts = MinuteAccounts(domain=GPU, minute=minute, **amounts)
    store.apply([Batch(host=host, minutes=(accounts,))])


def held(
    model: str, seconds: float, gigabytes: float | None = None, *, minute: int = MINUTE, **more: Any
) -> LoadedMinute:
    size = None if gigabytes is None else gigabytes * GB * seconds
    plain: dict[str, Any] = {"domain": GPU, "backend": "ollama"} | more
    return LoadedMinute(
        minute=minute, model=model, seconds=seconds, vram_byte_seconds=size, **plain
    )


def watched(seconds: float, *, minute: int = MINUTE) -> LoadedMinute:
    return LoadedMinute(domain=GPU, minute=minute, seconds=seconds)


def lines(store: RecordStore, **when: Any) -> dict[str | None, LedgerLine]:
    return {line.model: line for line in store.ledger(by="model", **when)}


def test_idle_joules_are_split_by_the_memory_that_models_take(store: RecordStore) -> None:
    """Three quarters of the memory, three quarters of the floor; and it says how it was split."""
    book(store, measured_joules=100.0, idle_joules=80.0, foreign_joules=20.0)
    store.keep_loaded("here", [watched(60), held("big", 60, 30), held("small", 60, 10)])
    found = lines(store)
    assert found["big"].idle_joules == pytest.approx(60.0)
    assert found["small"].idle_joules == pytest.approx(20.0)
    assert (found["big"].split, found["small"].split) == ("vram", "vram")
    assert found[None].idle_joules == pytest.approx(0.0)
    assert (found[None].foreign_joules, found[None].split) == (20.0, None)
    assert found["big"].measured_joules == pytest.approx(60.0)


def test_a_floor_with_nothing_loaded_is_of_no_model(store: RecordStore) -> None:
    """Loaded for a quarter of the minute that was watched, a quarter of its idle joules."""
    book(store, measured_joules=100.0, idle_joules=100.0)
    store.keep_loaded("here", [watched(20), held("one", 5, 8)])
    store.keep_loaded("here", [watched(20), held("one", 5, 8)])
    found = lines(store)
    assert found["one"].idle_joules == pytest.approx(25.0)
    assert found[None].idle_joules == pytest.approx(75.0)


@pytest.mark.parametrize(
    ("models", "shares", "split"),
    [
        ([held("a", 60), held("b", 60)], {"a": 50, "b": 50}, "equal"),
        ([held("a", 60), held("b", 60, 90)], {"a": 50, "b": 50}, "equal"),
        ([held("a", 60)], {"a": 100}, "vram"),
        ([held("a", 60, 0)], {"a": 0}, "vram"),
        ([held("a", 60, 0), held("b", 60, 5)], {"a": 0, "b": 100}, "vram"),
        ([held("a", 60, 1), held("a", 60, 3, backend="two")], {"a": 100}, "vram"),
    ],
)
def test_memory_that_is_not_told_is_not_guessed(
    store: RecordStore, models: list[LoadedMinute], shares: dict[str, float], split: str
) -> None:
    """Several of which one does not tell its memory share alike; one in main memory has none."""
    book(store, measured_joules=100.0, idle_joules=100.0)
    store.keep_loaded("here", [watched(60), *models])
    found = lines(store)
    for model, joules in shares.items():
        assert found[model].idle_joules == pytest.approx(joules)
        assert found[model].split == split


def test_what_requests_took_is_told_by_their_model(store: RecordStore) -> None:
    """Active, idle share and load as the records have them; undivided joules count as active."""
    book(
        store,
        measured_joules=170.0,
        active_joules=100.0,
        idle_share_joules=40.0,
        load_joules=30.0,
    )

    def record(number: int, model: str | None, **joules: float | None) -> Any:
        energy = DomainEnergy(scope="gpu", source="test", **joules)
        return make_record(number, model=model, domains={GPU: energy})

    records = (
        record(0, "a", joules=80.0, active_joules=60.0, idle_share_joules=20.0, load_joules=30.0),
        record(1, "b", joules=50.0, active_joules=30.0, idle_share_joules=20.0, load_joules=0.0),
        record(2, "b", joules=10.0),
        record(3, "b", joules=None),
    )
    store.apply([Batch(host="here", records=records)])
    found = lines(store)
    assert found["a"].active_joules == pytest.approx(60.0)
    assert found["b"].active_joules == pytest.approx(40.0)
    assert (found["a"].idle_share_joules, found["b"].idle_share_joules) == (20.0, 20.0)
    assert (found["a"].load_joules, found["b"].load_joules) == (30.0, 0.0)
    assert found["a"].split is None
    assert abs(found[None].measured_joules) < 1e-9


def test_a_span_of_time_has_its_own_lines(store: RecordStore) -> None:
    """Only its minutes and what was loaded in them."""
    for minute in (MINUTE, MINUTE + 1):
        book(store, minute=minute, measured_joules=10.0, idle_joules=10.0)
    store.keep_loaded("here", [watched(60), held("early", 60, 1)])
    late = [watched(60, minute=MINUTE + 1), held("late", 60, 1, minute=MINUTE + 1)]
    store.keep_loaded("here", late)
    found = lines(store, since=BEGIN + timedelta(minutes=1))
    assert found.keys() == {"late", None}
    assert found["late"].idle_joules == pytest.approx(10.0)


SMALLEST = 1e-12
"""Sensors tell microjoules; a product too small for a double is an error to Postgres."""
AMOUNT = st.just(0.0) | st.floats(SMALLEST, 1e6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    minutes=st.lists(
        st.tuples(st.fixed_dictionaries(dict.fromkeys(AMOUNTS, AMOUNT)), AMOUNT), max_size=3
    ),
    models=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.just(0.0) | st.floats(SMALLEST, 70),
            st.none() | st.just(0.0) | st.floats(SMALLEST, 80),
            st.integers(0, 2),
        ),
        max_size=5,
    ),
    served=st.lists(st.tuples(st.sampled_from("abcd"), AMOUNT, AMOUNT, AMOUNT), max_size=4),
)
def test_lines_by_model_add_up_to_the_line_by_domain(
    store: RecordStore, minutes: list[Any], models: list[Any], served: list[Any]
) -> None:
    """Whatever was loaded and asked, of every account; what is of no model holds the rest."""
    host = make_record().id
    for number, (amounts, seconds) in enumerate(minutes):
        book(store, minute=MINUTE + number, host=host, **amounts)
        store.keep_loaded(host, [watched(seconds % 60, minute=MINUTE + number)])
    for model, seconds, size, number in models:
        store.keep_loaded(host, [held(model, seconds, size, minute=MINUTE + number)])
    records = tuple(
        make_record(
            host=host,
            model=model,
            domains={
                GPU: DomainEnergy(
                    scope="gpu",
                    source="test",
                    joules=active + idle,
                    active_joules=active,
                    idle_share_joules=idle,
                    load_joules=load,
                )
            },
        )
        for model, active, idle, load in served
    )
    store.apply([Batch(host=host, records=records)])
    by_domain = [line for line in store.ledger() if line.host == host]
    by_model = [line for line in store.ledger(by="model") if line.host == host]
    assert bool(by_domain) == bool(minutes)
    for line in by_domain:
        scale = 1e-9 * (1.0 + abs(line.measured_joules) + abs(line.residual_joules))
        for name in (*AMOUNTS, "residual_joules"):
            total = sum(getattr(one, name) for one in by_model)
            assert total == pytest.approx(getattr(line, name), abs=1e-6 + scale)
        for one in by_model:
            assert one.idle_joules >= -1e-6
