"""The energy of any window: nothing is made or lost by cutting, and the truth is within bounds."""

from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from collectors.base import Domain, Kind, Measure, Origin, Reading
from melodi.energy.edges import Edge, Edges
from melodi.energy.record import Quality
from melodi.energy.window import Missing, WindowEnergy, summable, total_joules, window_energy
from melodi.sampling.meters import EnergyCurve

MS = 1_000_000
MAX_WATTS = 500
END_MS = 5_000
POWERS = st.lists(st.integers(0, MAX_WATTS), min_size=50, max_size=50)
"""Watts in each 100 ms."""
MOMENTS = st.integers(0, END_MS * 10)
"""In tenths of a ms."""


def domain(measure: Measure = Measure.COUNTER, **more: object) -> Domain:
    known = {"max_power_watts": MAX_WATTS, "name": "gpu:a", "kind": Kind.GPU} | more
    return Domain(scope="gpu", source="test", measure=measure, **known)  # type: ignore[arg-type]


def true_uj(powers: list[int], at_ms: float) -> int:
    """W x ms is mJ."""
    whole = int(at_ms // 100)
    rest = powers[whole] * (at_ms - 100 * whole) if whole < len(powers) else 0
    return round((100 * sum(powers[:whole]) + rest) * 1_000)


def polled(
    powers: list[int], *, refresh_ms: int, phase_ms: int, poll_ms: int, known: bool
) -> EnergyCurve:
    """A counter that is renewed every `refresh_ms`, read every `poll_ms`."""
    curve = EnergyCurve(domain(refresh_ns=refresh_ms * MS if known else None))
    for at_ms in range(0, END_MS, poll_ms):
        shown_ms = max(0, (at_ms - phase_ms) // refresh_ms * refresh_ms + phase_ms)
        curve.feed(Reading("gpu:a", at_ms * MS, 0, energy_uj=true_uj(powers, shown_ms)))
    return curve


def between(curve: EnergyCurve, start_ns: int, end_ns: int) -> WindowEnergy:
    return window_energy(curve.domain, curve.cut(start_ns), curve.cut(end_ns), summable=True)


def steady(*, until_ms: int = 5_000, watts: int = 100, step_ms: int = 100) -> EnergyCurve:
    """An edge every `step_ms`, sharp in time."""
    curve = EnergyCurve(domain(refresh_ns=MS))
    for at_ms in range(0, until_ms + 1, step_ms):
        curve.feed(Reading("gpu:a", at_ms * MS, 0, energy_uj=at_ms * watts * 1_000))
    return curve


@given(POWERS, st.lists(MOMENTS, min_size=2, max_size=8, unique=True))
def test_cutting_a_window_makes_and_loses_no_energy(powers: list[int], moments: list[int]) -> None:
    """The parts between any cuts add up to the whole."""
    curve = polled(powers, refresh_ms=100, phase_ms=30, poll_ms=50, known=True)
    assume(len(curve.edges) > 6)
    first_ns, last_ns = curve.edges[2].at_ns, curve.edges[-3].at_ns
    cuts = sorted(first_ns + at * MS // 10 % (last_ns - first_ns) for at in moments)
    parts = [between(curve, start, end).joules for start, end in pairwise(cuts)]
    whole = between(curve, cuts[0], cuts[-1]).joules
    assert whole == pytest.approx(sum(parts), abs=1e-6)


@given(
    POWERS,
    st.sampled_from([20, 100]),
    st.integers(0, 99),
    st.sampled_from([10, 50, 70]),
    st.booleans(),
    st.tuples(MOMENTS, MOMENTS),
)
@example([0, 500] * 25, 100, 99, 70, False, (4_999, 5_001))
@example([500, 0] * 25, 100, 3, 50, True, (29_668, 30_168))
def test_the_bounds_hold_the_truth(
    powers: list[int],
    refresh_ms: int,
    phase_ms: int,
    poll_ms: int,
    known: bool,
    ends: tuple[int, int],
) -> None:
    """For any power, phase, poll and window, however short."""
    start, end = sorted(ends)
    curve = polled(
        powers, refresh_ms=refresh_ms, phase_ms=phase_ms % refresh_ms, poll_ms=poll_ms, known=known
    )
    found = between(curve, start * MS // 10, end * MS // 10)
    assume(found.joules is not None)
    truth = (true_uj(powers, end / 10) - true_uj(powers, start / 10)) / 1e6
    slack = 1e-5  # the counter itself is rounded to microjoules
    assert found.low_joules - slack <= truth <= found.high_joules + slack
    assert found.low_joules <= found.joules <= found.high_joules


@given(POWERS, POWERS)
def test_more_energy_outside_never_changes_it(powers: list[int], others: list[int]) -> None:
    """What is used before the bin of its begin and after the bin of its end is not its own."""
    start_ns, end_ns = 1_550 * MS, 3_450 * MS
    outside = others[:14] + powers[14:36] + others[36:]
    one, other = (
        between(polled(watts, refresh_ms=100, phase_ms=0, poll_ms=50, known=True), start_ns, end_ns)
        for watts in (powers[:], outside)
    )
    assume(all(powers[14:36]) and all(outside))
    assert one.joules == pytest.approx(other.joules)
    assert one.low_joules == pytest.approx(other.low_joules)
    assert one.high_joules == pytest.approx(other.high_joules)


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "reason"),
    [
        (50, 1_000, "before_first_edge"),
        (1_000, 5_050, "past_last_edge"),
        (6_000, 7_000, "past_last_edge"),
    ],
)
def test_a_window_past_the_ends_of_the_curve_is_unknown_not_zero(
    start_ms: int, end_ms: int, reason: str
) -> None:
    """Before the first edge and after the last nobody measured."""
    found = between(steady(), start_ms * MS, end_ms * MS)
    assert (found.joules, found.low_joules, found.high_joules, found.mean_watts) == (None,) * 4
    assert found.quality is Quality.NONE
    assert found.reasons == (reason,)


def test_within_a_bin_energy_is_interpolated() -> None:
    """A quarter of a bin of 10 J at one end, six tenths at the other."""
    found = between(steady(), 1_024_500_000, 2_059_500_000)
    assert found.joules == pytest.approx(103.5)
    assert found.mean_watts == pytest.approx(100)


def test_an_empty_curve_is_unknown() -> None:
    """A meter that never moved."""
    curve = EnergyCurve(domain())
    assert curve.cut(5) is Missing.AFTER


@pytest.mark.parametrize(
    ("end_ms", "quality"),
    [
        (3_000, Quality.MEASURED),
        (2_000, Quality.MEASURED),
        (1_999, Quality.INTERPOLATED),
        (1_200, Quality.INTERPOLATED),
        (1_199, Quality.SUB_SENSOR),
    ],
)
def test_the_quality_tells_how_many_refreshes_were_seen(end_ms: int, quality: Quality) -> None:
    """Ten, two or fewer; polls further apart than the sensor's refresh count as its refresh."""
    assert between(steady(), 1_000 * MS, end_ms * MS).quality is quality


def test_a_gauge_is_at_best_interpolated_and_an_estimate_says_so() -> None:
    """However long the window."""
    for more, quality in (({}, Quality.INTERPOLATED), ({"estimated": True}, Quality.ESTIMATED)):
        curve = EnergyCurve(domain(Measure.GAUGE, **more))
        for at_ms in range(0, 5_000, 50):
            curve.feed(Reading("gpu:a", at_ms * MS, 0, power_uw=100_000_000))
        found = between(curve, 500 * MS, 4_500 * MS)
        assert found.quality is quality
        assert found.joules == pytest.approx(400)


def broken(reset: bool) -> EnergyCurve:
    """100 W with nothing seen between 2 s and 4 s, and the counter reset in it or not."""
    curve = EnergyCurve(domain(refresh_ns=100 * MS))
    for at_ms in (*range(0, 2_001, 50), *range(4_000, 6_001, 50)):
        energy_uj = at_ms // 100 * 10_000_000
        if reset and at_ms >= 4_000:
            energy_uj -= 390_000_000
        curve.feed(Reading("gpu:a", at_ms * MS, 0, energy_uj=energy_uj))
    return curve


def test_a_stall_inside_loses_no_joules_and_says_so() -> None:
    """The counter ran on."""
    found = between(broken(reset=False), 1_000 * MS, 5_000 * MS)
    assert found.joules == pytest.approx(400, abs=6)
    assert found.quality is Quality.GAP
    assert found.reasons == ("stall",)
    assert between(broken(reset=False), 4_500 * MS, 5_500 * MS).quality is not Quality.GAP


def test_a_reset_inside_leaves_what_was_measured_and_a_bound_that_holds_the_truth() -> None:
    """Mean power is unknown then; full power may have been drawn in the gap."""
    found = between(broken(reset=True), 1_000 * MS, 5_000 * MS)
    assert found.joules == pytest.approx(200, abs=11)
    assert found.high_joules >= 400
    assert found.mean_watts is None
    assert found.quality is Quality.GAP
    assert found.reasons == ("unmeasured",)
    inside = between(broken(reset=True), 2_500 * MS, 3_500 * MS)
    assert (inside.joules, inside.reasons) == (None, ("unmeasured",))


def energy(joules: float | None, *, added: bool = True) -> WindowEnergy:
    return WindowEnergy(joules=joules, scope="gpu", source="test", summable=added)


def test_only_domains_that_may_be_summed_are_and_an_unknown_makes_the_sum_unknown() -> None:
    """Zero is a measurement; nothing at all is none."""
    assert total_joules([energy(1), energy(0), energy(7, added=False)]) == 1
    assert total_joules([energy(1), energy(None, added=False)]) == 1
    assert total_joules([energy(1), energy(None)]) is None
    assert total_joules([energy(7, added=False)]) is None
    assert total_joules([]) is None


def test_a_platform_is_not_added_and_simulated_joules_are_not_mixed_with_sensed_ones() -> None:
    """Where a simulator is read, it is what counts."""
    psys = domain(name="psys:0", summable=False)
    sensed = domain(name="package:0")
    simulated = domain(name="gpu:s", origin=Origin.SIMULATOR)
    assert summable([psys, sensed]) == {"package:0"}
    assert summable([psys, sensed, simulated]) == {"gpu:s"}


def test_edges_are_bounded_and_a_cut_taken_before_they_were_forgotten_still_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A window may last longer than the curve remembers."""
    monkeypatch.setattr("melodi.sampling.meters.EDGES_KEPT", 10)
    curve = steady(until_ms=1_000)
    start = curve.cut(500 * MS)
    for at_ms in range(1_100, 9_001, 100):
        curve.feed(Reading("gpu:a", at_ms * MS, 0, energy_uj=at_ms * 100_000))
        assert len(curve.edges) <= 20
    assert curve.cut(500 * MS) is Missing.BEFORE
    found = window_energy(curve.domain, start, curve.cut(8_500 * MS), summable=True)
    assert found.joules == pytest.approx(800)
    assert found.quality is Quality.MEASURED


@given(st.lists(st.tuples(*[st.integers(0, 2**62)] * 5)), st.integers(1, 9))
def test_edges_come_back_as_they_were(numbers: list[tuple[int, ...]], count: int) -> None:
    """As numbers in a row they are what they were as objects, from either end and in part."""
    told = [Edge(*one) for one in numbers]
    edges = Edges()
    for one in told:
        edges.append(one)
    assert list(edges) == told
    assert [edges[-k - 1] for k in range(len(edges))] == told[::-1]
    assert list(edges.latest(count)) == told[-count:]
    assert edges.latest(count).last == edges.last == (told[-1] if told else None)
    with pytest.raises(IndexError):
        edges[len(told)]
