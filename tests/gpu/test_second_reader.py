"""What the second reader saw, and what other ways of telling energy make of it."""

import pytest

from benchmarks.gpu.end_to_end.energy import SECOND, Seen, Sent, in_service, padded, whole_device


def seen(watts: float = 200, seconds: int = 20) -> Seen:
    """Steady power; the counter changes every 100 ms, power is shown as often."""
    lines = ["L 700000\n", "E 0 999\n"]
    for k in range(1, seconds * 10):
        at_ns = k * SECOND // 10
        lines += [
            f"E {at_ns} {round(watts * 1_000 * k / 10)}\n",
            f"P {at_ns} {watts * 1_000:.0f}\n",
        ]
    return Seen.of(lines)


def sent(start: float, end: float) -> Sent:
    return Sent("one", round(start * SECOND), None, round(end * SECOND), 10)


def test_energy_lies_straight_between_changes() -> None:
    """A quarter of a refresh has a quarter of its joules."""
    assert seen().joules(1.025 * SECOND, 3.05 * SECOND) == pytest.approx(200 * 2.025)


def test_outside_of_what_was_seen_nothing_is_known() -> None:
    """Neither before the first change nor after the last one is energy 0."""
    one = seen()
    assert one.joules(0, SECOND) is None
    assert one.joules(SECOND, 60 * SECOND) is None
    assert one.mean_watts(60 * SECOND, 61 * SECOND) is None
    assert Seen.of([]).joules(0, 1) is None


def test_a_line_that_was_cut_short_is_left_out() -> None:
    """The file of a reader that was killed ends anywhere."""
    lines = ["U GPU-1\n", "L 700000\n", "E 1 10\n", "E 2 20\n", "E 3 30\n", "E 4 4"]
    assert Seen.of(lines).millijoules == [20, 30]
    assert (Seen.of(lines).limit_mw, Seen.of(lines).uuid) == (700_000, "GPU-1")


def test_the_first_value_is_no_change() -> None:
    """When it came up nobody saw, so energy begins at the second."""
    assert Seen.of(["E 100 5\n", "E 200 6\n"]).at_ns == [200]


def test_the_refresh_is_the_longest_usual_distance() -> None:
    """100 ms; unknown without changes."""
    assert seen().refresh_seconds == pytest.approx(0.1)
    assert Seen.of([]).refresh_seconds is None


def test_whole_device_windows_count_shared_time_as_often_as_it_is_shared() -> None:
    """Four at once for two seconds: four times the joules that were used."""
    four = [sent(2, 4)] * 4
    assert whole_device(seen(), four) == pytest.approx(4 * 400)
    assert in_service(four) == (2 * SECOND, 4 * SECOND)


def test_padding_adds_a_second_to_each_request() -> None:
    """Mean power x (1 s + 1 s) for a prompt of one second: twice its joules."""
    assert padded(seen(), [sent(5, 6)]) == pytest.approx(400)
    assert padded(seen(), [sent(5, 6), sent(90, 91)]) is None
