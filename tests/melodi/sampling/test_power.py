"""Power leaves in slots that lie fixed in time, so that asking often tells no more."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.base import Domain, Kind, Measure, Reading
from melodi.sampling.meters import EnergyCurve
from melodi.sampling.power import latest_power, power_between

MS = 1_000_000
SECOND = 1_000 * MS


def curves_of(kind: Kind, watts: list[int]) -> Iterator[EnergyCurve]:
    """One that grows: so many watts in each 50 ms."""
    curve = EnergyCurve(
        Domain(name="x", kind=kind, scope="x", source="t", measure=Measure.COUNTER, refresh_ns=MS)
    )
    total_mj = 0
    for number, power in enumerate(watts):
        total_mj += power * 50
        curve.feed(Reading("x", number * 50 * MS, 0, energy_uj=total_mj * 1_000))
        yield curve


def curve_of(kind: Kind, watts: list[int]) -> EnergyCurve:
    """The same with all of them."""
    *_, curve = curves_of(kind, watts)
    return curve


@given(st.lists(st.integers(1, 300), min_size=45, max_size=80))
def test_a_cpus_power_changes_once_a_second_whoever_asks_when(watts: list[int]) -> None:
    """All answers within one second are the same number."""
    answers: dict[int, set[float | None]] = {}
    for known, curve in enumerate(curves_of(Kind.CPU, watts), start=1):
        found = latest_power(curve, known * 50 * MS)
        if found is not None:
            answers.setdefault(found.end_ns, set()).add(found.mean_watts)
            assert found.end_ns % SECOND == 0
    assert answers
    assert all(len(one) == 1 for one in answers.values())


def test_a_gpu_may_be_seen_five_times_a_second() -> None:
    """100 W in one fifth of a second and 300 W in the next."""
    watts = [100] * 21 + [300] * 4
    found = latest_power(curve_of(Kind.GPU, [*watts, 1, 1]), 1_300 * MS)
    assert found is not None
    assert found.end_ns == 1_200 * MS
    assert found.mean_watts == pytest.approx(300, rel=0.02)


def test_old_power_is_not_what_is_drawn_now() -> None:
    """A sensor that died some seconds ago is unknown, not its last value."""
    curve = curve_of(Kind.CPU, [100] * 60)
    assert latest_power(curve, 3_000 * MS) is not None
    assert latest_power(curve, 10 * SECOND) is None
    assert latest_power(EnergyCurve(curve.domain), 0) is None


def test_the_past_comes_in_whole_slots_and_what_was_not_seen_is_unknown() -> None:
    """From the slot that holds the start to the one that holds the end."""
    curve = curve_of(Kind.CPU, [100] * 70)
    found = power_between(curve, 1_500 * MS, 4_200 * MS)
    assert [one.end_ns // SECOND for one in found] == [2, 3, 4, 5]
    assert [one.mean_watts for one in found] == [
        pytest.approx(100),
        pytest.approx(100),
        None,
        None,
    ]
