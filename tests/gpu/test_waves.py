"""What polls tell of a sensor, against sensors whose truth is known."""

import random

import pytest

from benchmarks.gpu.probe.load import square_wave
from benchmarks.gpu.probe.waves import (
    DELAYS_MS,
    MOST_POINTS,
    MS,
    SECOND,
    WINDOWS_MS,
    OnTimes,
    Poll,
    changes,
    counted_power,
    integral_mj,
    mean_power_mw,
    refresh_of,
    shown_power,
    spread_us,
    tail_of,
    window_of,
)

IDLE_MW, BUSY_MW = 80_000, 500_000


def waves(seed: int = 0) -> OnTimes:
    """Four waves after each other with pauses, each begun at a random moment."""
    chance = random.Random(seed)
    spans, at_ns = [], 2 * SECOND
    for half_ms in (10, 30, 50, 70):
        at_ns += 2 * SECOND + chance.randrange(200 * MS)
        spans += [(at_ns + start, at_ns + to) for start, to in square_wave(4, half_ms)]
        at_ns += 4 * SECOND
    return OnTimes(spans)


def mean_mw(on: OnTimes, start_ns: float, end_ns: float) -> float:
    return IDLE_MW + (BUSY_MW - IDLE_MW) * on.share(start_ns, end_ns)


def gauge(on: OnTimes, refresh_ms: int, window_ms: int, *, noise_mw: float = 0) -> list[Poll]:
    """Polls, 1 ms apart and 0.3 ms wide, of a trailing mean that is renewed on its own grid."""
    chance = random.Random(1)
    polls, shown, renewed = [], 0, -1
    for at_ns in range(SECOND, 30 * SECOND, MS):
        number = (at_ns + 37 * MS) // (refresh_ms * MS)
        if number != renewed:
            renewed, end_ns = number, number * refresh_ms * MS - 37 * MS
            shown = round(mean_mw(on, end_ns - window_ms * MS, end_ns) + chance.gauss(0, noise_mw))
        polls.append(Poll(at_ns, 300_000, shown))
    return polls


def counter(on: OnTimes, refresh_ms: int, looks_ms: int) -> list[Poll]:
    """Polls of a counter that takes, each refresh, what it saw in the last `looks_ms` for all."""
    polls, total_mj, renewed = [], 0.0, SECOND // (refresh_ms * MS)
    for at_ns in range(SECOND, 30 * SECOND, MS):
        number = at_ns // (refresh_ms * MS)
        if number != renewed:
            renewed, end_ns = number, number * refresh_ms * MS
            total_mj += mean_mw(on, end_ns - looks_ms * MS, end_ns) * refresh_ms / 1_000
        polls.append(Poll(at_ns, 300_000, round(total_mj)))
    return polls


@pytest.mark.parametrize("refresh_ms", [20, 33, 100])
def test_the_refresh_is_found_though_many_refreshes_bring_the_same_value(refresh_ms: int) -> None:
    """A flat stretch shows no changes; the period is not taken for a multiple of itself."""
    found = refresh_of([gauge(waves(), refresh_ms, 10)])
    assert found is not None
    assert found.period_ms == pytest.approx(refresh_ms, rel=0.01)
    assert found.low_ms <= found.period_ms <= found.high_ms
    assert not found.is_bound


def test_a_value_renewed_faster_than_it_is_polled_gives_a_bound() -> None:
    """What is found is then the polling, and it says so."""
    polls = [Poll(at, 0, at) for at in range(0, SECOND, 5 * MS)]
    found = refresh_of([polls])
    assert found is not None
    assert found.is_bound


def test_too_few_changes_tell_no_refresh() -> None:
    """A still sensor's refresh is unknown, not infinite."""
    assert refresh_of([[Poll(at, 0, 7) for at in range(0, SECOND, MS)]]) is None


@pytest.mark.parametrize(
    ("refresh_ms", "window_ms"), [(100, 25), (100, 1000), (20, 10), (100, 100)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_window_of_a_noisy_gauge_is_found(refresh_ms: int, window_ms: int, seed: int) -> None:
    """The truth lies among the widths it calls possible, and those are narrow."""
    on = waves(seed)
    found = window_of(shown_power(gauge(on, refresh_ms, window_ms, noise_mw=5_000)), on)
    assert found is not None
    assert found.low_ms <= window_ms <= found.high_ms
    assert found.width_ms == pytest.approx(window_ms, rel=0.5)
    assert found.high_ms <= 2 * window_ms


@pytest.mark.parametrize("looks_ms", [25, 100])
def test_a_counter_that_looks_part_of_the_time_is_told_from_one_that_integrates(
    looks_ms: int,
) -> None:
    """Its window is as wide as what it looks at, not as its refresh."""
    on = waves()
    polls = counter(on, 100, looks_ms)
    found = window_of(counted_power(polls), on)
    assert found is not None
    assert found.width_ms == looks_ms


def test_a_sensor_that_is_new_at_each_poll_is_told_from_a_part_of_them() -> None:
    """27,000 values tell the window by no more work than a thousand: the probe has minutes."""
    asked = 0

    class Counting(OnTimes):
        def until(self, at_ns: float) -> float:
            nonlocal asked
            asked += 1
            return super().until(at_ns)

    on = waves()
    points = [(poll.at_ns, float(poll.value)) for poll in gauge(on, 1, 25)]
    found = window_of(points, Counting(on.spans))
    assert found is not None
    assert found.low_ms <= 25 <= found.high_ms
    assert asked <= MOST_POINTS * len(DELAYS_MS) * (1 + len(WINDOWS_MS))


def test_a_sensor_that_does_not_follow_the_load_has_no_window() -> None:
    """Noise alone explains nothing, and nothing is claimed."""
    chance = random.Random(3)
    points = [(at * 100 * MS, chance.gauss(200, 30)) for at in range(300)]
    assert window_of(points, waves()) is None


def test_a_sensor_that_falls_under_load_has_no_window() -> None:
    """A line that falls is not the power of kernels."""
    on = waves()
    points = [(at, 600_000 - value) for at, value in shown_power(gauge(on, 100, 25))]
    assert window_of(points, on) is None


def test_a_change_lies_midway_between_two_polls() -> None:
    """Neither the poll that saw it nor the one before knows better."""
    polls = [Poll(0, 0, 5), Poll(10, 0, 5), Poll(20, 0, 6)]
    assert changes(polls) == [Poll(15, 10, 6)]


def test_a_counters_power_is_taken_between_its_changes() -> None:
    """From poll to poll it would gain or lose up to a refresh at each end."""
    polls = counter(OnTimes([]), 100, 100)
    mean = mean_power_mw(polls, is_counter=True)
    assert mean == pytest.approx(IDLE_MW, rel=1e-3)


def test_power_is_held_until_the_next_poll() -> None:
    """300 mW for 1 s and 100 mW for 2 s, cut at half a second from each end."""
    polls = [Poll(0, 0, 300), Poll(SECOND, 0, 100), Poll(3 * SECOND, 0, 999)]
    assert integral_mj(polls, SECOND // 2, 5 * SECOND // 2) == pytest.approx(150 + 150)


def test_a_tail_ends_when_power_stays_near_idle() -> None:
    """Seconds to the last value above a tenth of the way, joules above idle; held to the end."""
    steps = ((5, 400_000), (2, 200_000), (3, 80_000))
    powers = [value for seconds, value in steps for _ in range(seconds * 100)]
    polls = [Poll(k * 10 * MS, 0, value) for k, value in enumerate(powers)]
    tail = tail_of(polls, 5 * SECOND, 80_000)
    assert tail["seconds"] == pytest.approx(2, abs=0.02)
    assert tail["joules_above_idle"] == pytest.approx(240, rel=0.01)
    assert tail_of(polls[:600], 5 * SECOND, 80_000)["seconds"] is None
    assert tail_of([], 5 * SECOND, 80_000) == {"seconds": None, "joules_above_idle": None}


def test_percentiles_are_by_nearest_rank() -> None:
    """A hundred times from 1 to 100 us; of none nothing is known."""
    spread = spread_us([k * 1_000 for k in range(1, 101)])
    assert spread == {"p50": 51, "p99": 100, "max": 100, "reads": 100}
    assert spread_us([]) is None
