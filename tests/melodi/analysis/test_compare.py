"""A comparison is of like with like, and says what it left out."""

from typing import Any

import pytest
from energy_records import make_record

from melodi.analysis.compare import Compared, CompareQuery, read_comparison
from melodi.energy.record import Quality
from melodi.store.queries import BadQuery, RequestFilter
from melodi.store.records import Batch, RecordStore


def add(store: RecordStore, count: int, *, joules: float, **changes: Any) -> None:
    """Records of about so many joules and 10 tokens each."""
    plain = {
        "footprint": "gpu",
        "origin": "sensor",
        "input_tokens": 30,
        "output_tokens": 10,
        "model": "small",
    }
    records = tuple(
        make_record(n, energy_joules=joules + n % 3, **(plain | changes)) for n in range(count)
    )
    store.apply([Batch(host="here", records=records)])


def compared(store: RecordStore, **asked: Any) -> Compared:
    filters = {key: asked.pop(key) for key in list(asked) if key not in ("by", "a", "b")}
    query = CompareQuery(
        **({"by": "model", "a": "small", "b": "big"} | asked), wanted=RequestFilter(**filters)
    )
    return store.ask(lambda one: read_comparison(one, query))


def test_models_are_compared_by_token_and_by_request(store: RecordStore) -> None:
    """Each metric with both values, the ratio, its interval and who has less."""
    add(store, 6, joules=10.0)
    add(store, 9, joules=40.0, model="big")
    add(store, 5, joules=1.0, model="other")
    found = compared(store)
    assert found.joules_per_output_token.a == (6 * 10 + 6) / 60
    assert found.joules_per_request.b == (9 * 40 + 9) / 9
    assert found.joules_per_token.a == (6 * 10 + 6) / 240
    assert found.joules_per_request.ratio == pytest.approx(11 / 41)
    assert found.joules_per_request.low < 11 / 41 < found.joules_per_request.high
    assert found.joules_per_request.lower == "a"
    assert (found.a.value, found.a.count, found.b.count) == ("small", 6, 9)
    assert (found.footprint, found.origin, found.estimated) == ("gpu", "sensor", False)


def test_doubtful_records_are_left_out_and_counted(store: RecordStore) -> None:
    """Unless they are asked for; those of unknown tokens count where none are needed."""
    add(store, 4, joules=10.0)
    add(store, 2, joules=10.0, output_tokens=None)
    for quality in (Quality.GAP, Quality.SUB_SENSOR, Quality.NONE):
        add(store, 1, joules=1e6, quality=quality)
    add(store, 3, joules=10.0, model="big", quality=Quality.ESTIMATED)
    found = compared(store)
    assert found.a.qualities == {"measured": 6}
    assert found.a.left_out == {"gap": 1, "none": 1, "sub_sensor": 1}
    assert (found.b.count, found.estimated) == (3, True)
    assert found.joules_per_request.a_known == 6
    assert found.joules_per_output_token.a_known == 4
    assert found.joules_per_request.a < 20
    add(store, 3, joules=10.0, model="big", quality=Quality.GAP)
    assert compared(store, quality=Quality.GAP).a.count == 1


@pytest.mark.parametrize(
    ("unlike", "remedy"),
    [({"footprint": "gpu+cpu"}, "footprint=gpu"), ({"origin": "simulator"}, "origin=sensor")],
)
def test_unlike_records_are_refused_with_the_filter_that_helps(
    store: RecordStore, unlike: dict[str, str], remedy: str
) -> None:
    """Neither footprints nor origins are mixed; with the filter there is an answer."""
    add(store, 4, joules=10.0)
    add(store, 4, joules=20.0, model="big")
    add(store, 3, joules=30.0, model="big", **unlike)
    with pytest.raises(BadQuery, match=f"cannot be compared.*add {remedy}"):
        compared(store)
    name, _, kind = remedy.partition("=")
    assert compared(store, **{name: kind}).b.count == 4


def test_where_nothing_is_in_common_no_filter_is_named(store: RecordStore) -> None:
    """One measured on the GPU alone and one with the processor: no subset compares."""
    add(store, 4, joules=10.0)
    add(store, 4, joules=20.0, model="big", footprint="gpu+cpu")
    with pytest.raises(BadQuery, match="no footprint in common"):
        compared(store)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"b": "small"}, "compared with itself"),
        ({"b": "absent"}, "no record with model 'absent'"),
        ({"by": "colour"}, "nothing to compare by called 'colour'"),
        ({"by": 'tag:a"b'}, "cannot be looked for"),
    ],
)
def test_what_cannot_be_compared_is_said(
    store: RecordStore, asked: dict[str, str], said: str
) -> None:
    """With what to do instead."""
    add(store, 4, joules=10.0)
    with pytest.raises(BadQuery, match=said):
        compared(store, **asked)


def test_variants_may_be_compared_by_tag(store: RecordStore) -> None:
    """Two variants of an experiment, told apart by a label; provisional records wait."""
    add(store, 4, joules=10.0, tags={"variant": "one"})
    add(store, 5, joules=20.0, tags={"variant": "two"})
    add(store, 5, joules=90.0, tags={"variant": "two"}, provisional=True)
    found = compared(store, by="tag:variant", a="one", b="two", model="small")
    assert (found.a.count, found.b.count) == (4, 5)
    assert found.joules_per_request.lower == "a"
