"""A curve loses no energy, never falls, and places its edges where the counter changed."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.base import Domain, Kind, Measure, Reading
from melodi.energy.bins import Bin
from melodi.sampling.meters import EnergyCurve

MS = 1_000_000


def domain(measure: Measure = Measure.COUNTER, **more: object) -> Domain:
    return Domain(  # type: ignore[misc]
        name="gpu:a", kind=Kind.GPU, scope="gpu", source="test", measure=measure, **more
    )


def counter(at_ms: int, energy_uj: int) -> Reading:
    return Reading("gpu:a", at_ms * MS, 0, energy_uj=energy_uj)


def gauge(at_ms: int, watts: float | None) -> Reading:
    power_uw = None if watts is None else round(watts * 1e6)
    return Reading("gpu:a", at_ms * MS, 0, power_uw=power_uw)


def feed(curve: EnergyCurve, readings: list[Reading]) -> list[Bin]:
    return [bin_ for one in readings if (bin_ := curve.feed(one)) is not None]


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 10**6)), min_size=2, max_size=60))
def test_the_bins_of_a_counter_add_up_to_what_it_gained_to_the_unit(
    steps: list[tuple[int, int]],
) -> None:
    """From the first change on, no microjoule is lost or made, and bins touch each other."""
    at_ms, total = 0, 5_000
    readings = []
    for wait_ms, gained in steps:
        at_ms, total = at_ms + wait_ms, total + gained
        readings.append(counter(at_ms, total))
    bins = feed(EnergyCurve(domain()), readings)
    changes = [i for i in range(1, len(readings)) if steps[i][1] > 0]
    if changes:
        assert sum(one.energy_uj or 0 for one in bins) == total - readings[changes[0]].energy_uj
    for before, after in pairwise(bins):
        assert before.end_ns == after.start_ns
        assert before.end_ns > before.start_ns
        assert after.total_uj == before.total_uj + after.energy_uj


@given(st.integers(0, 99), st.integers(20, 60))
def test_an_edge_lies_within_its_half_width_of_the_true_refresh(phase: int, poll_ms: int) -> None:
    """A counter renewed every 100 ms at an unknown phase, polled more often than that."""
    curve = EnergyCurve(domain())
    for at_ms in range(0, 3_000, poll_ms):
        refreshes = (at_ms + phase) // 100
        curve.feed(counter(at_ms, 1_000_000 + refreshes * 500_000))
    assert len(curve.edges) > 20
    for edge in curve.edges:
        away_ns = (edge.at_ns + phase * MS) % (100 * MS)
        assert min(away_ns, 100 * MS - away_ns) <= edge.half_width_ns


def test_a_known_fast_refresh_puts_the_edge_at_the_poll() -> None:
    """RAPL is renewed every ms: what a poll reads is not 50 ms old."""
    curve = EnergyCurve(domain(refresh_ns=MS))
    feed(curve, [counter(0, 0), counter(100, 10)])
    assert curve.edges[-1].at_ns == pytest.approx(99.5 * MS)
    assert curve.edges[-1].half_width_ns == MS // 2


def test_an_unchanged_counter_is_not_refreshed_yet() -> None:
    """No bin of 0 J: the energy shows up in the bin that the next change ends."""
    bins = feed(
        EnergyCurve(domain()),
        [counter(0, 0), counter(50, 100), counter(100, 100), counter(150, 300)],
    )
    assert [one.energy_uj for one in bins] == [200]
    assert (bins[0].start_ns, bins[0].end_ns) == (25 * MS, 125 * MS)


def test_a_reset_leaves_an_unmeasured_bin_and_the_curve_does_not_fall() -> None:
    """After a driver reload the gap is unknown; counting goes on from the new value."""
    bins = feed(
        EnergyCurve(domain()),
        [counter(0, 10**9), counter(100, 10**9 + 5), counter(200, 7), counter(300, 9)],
    )
    assert [one.energy_uj for one in bins] == [None, 2]
    assert bins[0].reason == "counter_reset"
    assert [one.total_uj for one in bins] == [0, 2]


def test_a_stalled_sampler_leaves_one_long_measured_bin() -> None:
    """The counter ran on, so the joules are known; the bin says that nobody looked."""
    bins = feed(EnergyCurve(domain()), [counter(0, 0), counter(50, 10), counter(5_000, 500)])
    assert [(one.energy_uj, one.reason) for one in bins] == [(490, "stall")]


def test_a_gauge_is_integrated_by_trapezoids() -> None:
    """100 W to 200 W in 100 ms is 15 J."""
    bins = feed(EnergyCurve(domain(Measure.GAUGE)), [gauge(0, 100), gauge(100, 200)])
    assert [one.energy_uj for one in bins] == [15_000_000]


@given(st.lists(st.integers(0, 700_000_003), min_size=2, max_size=50))
def test_a_gauge_loses_less_than_a_microjoule_to_rounding(powers_uw: list[int]) -> None:
    """The remainder of each division is carried into the next bin."""
    curve = EnergyCurve(domain(Measure.GAUGE))
    for k, power_uw in enumerate(powers_uw):
        curve.feed(Reading("gpu:a", k * 7_001, 0, power_uw=power_uw))
    exact_uj = sum((a + b) * 7_001 for a, b in pairwise(powers_uw)) / 2e9
    assert 0 <= exact_uj - curve.edges[-1].total_uj < 1


@given(
    st.lists(st.tuples(st.integers(20, 900), st.integers(0, 700)), min_size=2, max_size=20),
    st.sampled_from([100, 1_000]),
    st.sampled_from([20, 50]),
)
def test_the_edge_of_a_mean_lies_where_its_energy_had_been_used(
    steps: list[tuple[int, int]], mean_ms: int, poll_ms: int
) -> None:
    """A mean shown for 100 ms adds up to what was used at a moment within the edge's width."""
    lag_ms = (100 + mean_ms) // 2
    curve = EnergyCurve(domain(Measure.GAUGE, refresh_ns=mean_ms * MS, lag_ns=lag_ms * MS))

    def used_mj(until_ms: float) -> float:
        total, start_ms = 0.0, 2_000
        for length_ms, watts in steps:
            total += watts * min(max(until_ms - start_ms, 0), length_ms)
            start_ms += length_ms
        return total

    end_ms = 4_000 + sum(length for length, _ in steps)
    for at_ms in range(2_000, end_ms, poll_ms):
        shown_ms = at_ms // 100 * 100
        watts = (used_mj(shown_ms) - used_mj(shown_ms - mean_ms)) / mean_ms
        curve.feed(gauge(at_ms, watts))
    for edge in curve.edges:
        # A poll sees a change up to its period late.
        low_mj = used_mj(edge.earliest_ns / MS - poll_ms)
        high_mj = used_mj(edge.latest_ns / MS + poll_ms)
        assert low_mj - 1 <= edge.total_uj / 1_000 <= high_mj + 1
    assert curve.edges[-1].total_uj / 1_000 == pytest.approx(used_mj(end_ms), rel=1e-3, abs=1)


def test_what_a_gauge_did_in_a_stall_is_unknown() -> None:
    """Between two distant readings of a gauge nothing is invented."""
    bins = feed(EnergyCurve(domain(Measure.GAUGE)), [gauge(0, 100), gauge(3_000, 100)])
    assert [(one.energy_uj, one.reason) for one in bins] == [(None, "stall")]


@given(st.integers(1, 400), st.integers(0, 99), st.sampled_from([20, 50, 130]))
def test_what_was_used_asleep_is_in_no_bin(last_ms: int, phase: int, poll_ms: int) -> None:
    """Whenever the sensor is renewed after a sleep: the unknown bin holds all that it shows."""
    curve = EnergyCurve(domain(refresh_ns=100 * MS))
    slept_uj, bins = 10**12, []
    for at_ms in range(0, 2_000, poll_ms):
        slept = at_ms >= last_ms
        if slept and at_ms - poll_ms < last_ms:
            curve.suspended(at_ms * MS)
        refreshed_ms = (at_ms + phase) // 100 * 100
        shown_uj = refreshed_ms * 1_000 + (slept_uj if refreshed_ms - phase >= last_ms else 0)
        bins += feed(curve, [counter(at_ms, shown_uj)])
    unknown = [one for one in bins if one.energy_uj is None]
    assert [one.reason for one in unknown] in (["suspended"], [])
    measured_uj = sum(one.energy_uj or 0 for one in bins)
    assert measured_uj <= 2_000 * 1_000
    assert curve.edges[-1].total_uj == measured_uj
    for before, after in pairwise(bins):
        assert before.end_ns == after.start_ns
        assert after.end_ns > after.start_ns


def test_what_a_gauge_did_asleep_is_unknown() -> None:
    """The power before and the power after say nothing of the time between."""
    curve = EnergyCurve(domain(Measure.GAUGE, refresh_ns=MS))
    bins = feed(curve, [gauge(0, 100), gauge(100, 100)])
    curve.suspended(150 * MS)
    bins += feed(curve, [gauge(200, 300), gauge(300, 300)])
    assert [(one.energy_uj, one.reason) for one in bins] == [
        (10_000_000, None),
        (None, "suspended"),
        (30_000_000, None),
    ]
