"""Readings of an engine's counters become what it did while somebody was in service."""

from collections.abc import Mapping

import pytest

from melodi.energy.engine import PATIENCE_NS, EngineSteps
from melodi.inference.engine_meter import (
    LOOK_EVERY_NS,
    EngineCounters,
    EngineMeter,
)

MS = 1_000_000
SECOND = 1_000 * MS


def counters(
    at_ms: int,
    steps: float | Mapping[str, float],
    prefill: float = 0.0,
    output: float = 0.0,
    *,
    took_ms: int = 0,
    process: float = 1.0,
) -> EngineCounters:
    by_engine = steps if isinstance(steps, Mapping) else {"0": steps}
    return EngineCounters(
        at_ns=at_ms * MS,
        half_width_ns=took_ms * MS // 2,
        process=process,
        steps=by_engine,
        prefill_tokens=prefill,
        output_tokens=output,
    )


def meter_read(*readings: EngineCounters) -> tuple[EngineMeter, list[EngineSteps]]:
    """A meter with one request in service all the time, and what the last reading told."""
    meter = EngineMeter("b")
    meter.begin("r", 0, streamed=False)
    told: list[EngineSteps] = []
    for one in readings:
        told = meter.feed(one)
    return meter, told


def steps_of(told: list[EngineSteps]) -> list[float | None]:
    return [one.steps for one in told]


def test_what_was_done_between_two_readings_is_told_and_nothing_of_before_the_first() -> None:
    """Steps, prefill and output tokens; the first reading only says that there will be more."""
    meter, first = meter_read(counters(1000, 500, 70, 900))
    assert [(one.start_ns, one.end_ns, one.steps) for one in first] == [(SECOND, SECOND, 0)]
    (second,) = meter.feed(counters(2000, 600, 100, 1700))
    assert second == EngineSteps(
        backend="b",
        start_ns=SECOND,
        end_ns=2 * SECOND,
        steps=100,
        prefill_tokens=30,
        output_tokens=800,
    )


def test_a_counter_that_fell_is_a_restart_and_the_stretch_is_unknown() -> None:
    """Never a negative number of steps; from the new reading on it counts again."""
    meter, told = meter_read(counters(1000, 500), counters(2000, 3))
    assert steps_of(told) == [None, 0]
    assert steps_of(meter.feed(counters(3000, 103))) == [100]


def test_another_process_that_counts_on_from_more_is_a_restart_as_well() -> None:
    """Or another server behind one address: its counters are not to be compared with these."""
    _, told = meter_read(counters(1000, 500), counters(2000, 900, process=2.0))
    assert steps_of(told) == [None, 0]


def test_a_reading_that_came_late_is_passed_over_and_the_next_one_tells_of_its_time() -> None:
    """Half a second in a second is too vague, in two and a half it is not: nothing is unknown."""
    meter, _ = meter_read(counters(1000, 500))
    meter.end("r", 1500 * MS)
    assert meter.feed(counters(2000, 600, took_ms=600)) == []
    assert meter.is_owed
    (told,) = meter.feed(counters(3500, 600, took_ms=600))
    assert (told.start_ns, told.end_ns, told.steps) == (SECOND, 1500 * MS, 100)
    assert not meter.is_owed


def test_a_server_that_is_always_late_tells_at_last_that_nothing_is_known() -> None:
    """Reading goes on no longer than there is something to tell."""
    meter, _ = meter_read(counters(1000, 500, took_ms=2000))
    meter.end("r", 1500 * MS)
    fed = [meter.feed(counters(at, 700, took_ms=2000)) for at in (4000, 6000, 9000)]
    assert [steps_of(one) for one in fed] == [[], [], [None, 0]]
    assert not meter.is_owed


def test_a_missed_reading_leaves_its_stretch_unknown() -> None:
    """What was done since the last one may have been anything; it is told once."""
    meter, _ = meter_read(counters(1000, 500))
    (lost,) = meter.miss(2000 * MS)
    assert (lost.start_ns, lost.end_ns, lost.steps) == (SECOND, 2 * SECOND, None)
    assert meter.miss(3000 * MS) == []
    assert steps_of(meter.feed(counters(4000, 800))) == [0]


def test_readings_far_apart_tell_nothing() -> None:
    """Others may have used the engine meanwhile."""
    late_ms = 1000 + PATIENCE_NS // MS + 1
    _, told = meter_read(counters(1000, 500), counters(late_ms, 900))
    assert steps_of(told) == [None, 0]


def test_steps_were_made_while_somebody_was_in_service() -> None:
    """A quarter of the service lies before the pause; a pause of a blink is none."""
    meter = EngineMeter("b")
    meter.feed(counters(0, 0))
    for name, start_ms, end_ms in (("a", 100, 150), ("b", 160, 200), ("c", 600, 900)):
        meter.begin(name, start_ms * MS, streamed=False)
        meter.end(name, end_ms * MS)
    told = meter.feed(counters(1000, 80))
    assert [(one.start_ns // MS, one.end_ns // MS) for one in told] == [(100, 200), (600, 900)]
    assert steps_of(told) == [20, 60]


def test_steps_for_nobody_whom_we_know_of_are_spread_over_all_the_time() -> None:
    """Somebody uses the engine past the gateway."""
    meter = EngineMeter("b")
    meter.feed(counters(0, 0))
    (told,) = meter.feed(counters(1000, 80))
    assert (told.start_ns, told.end_ns, told.steps) == (0, SECOND, 80)


def test_of_several_engines_the_busiest_counts() -> None:
    """A request is in one of them; one that stands still says nothing of it."""
    _, told = meter_read(counters(1000, {"0": 5, "1": 9}), counters(2000, {"0": 105, "1": 9}))
    assert steps_of(told) == [100]
    _, told = meter_read(counters(1000, {"0": 5}), counters(2000, {"0": 105, "1": 9}))
    assert steps_of(told) == [None, 0]


def meter_that_has_looked() -> EngineMeter:
    """A meter to which a stream is nothing new."""
    meter = EngineMeter("b")
    meter.begin("before", -2 * MS, streamed=True)
    meter.end("before", -MS)
    meter.feed(counters(-1, 0))
    assert not meter.is_owed
    return meter


def test_one_stream_in_a_while_is_followed_as_well() -> None:
    """It tells how fast prompts are read, and so which streams have waited."""
    meter = meter_that_has_looked()
    meter.begin("next", LOOK_EVERY_NS - 2 * MS - 1, streamed=True)
    assert not meter.is_owed
    meter.begin("later", LOOK_EVERY_NS - 2 * MS, streamed=True)
    assert meter.is_owed


def test_a_reading_is_owed_only_for_requests_that_are_not_streamed() -> None:
    """While one is in service, and once after; where none was, nobody need be asked."""
    meter = meter_that_has_looked()
    meter.begin("streamed", 0, streamed=True)
    assert not meter.is_owed
    meter.begin("whole", MS, streamed=False)
    assert meter.is_owed
    meter.feed(counters(10, 1))
    assert meter.is_owed
    meter.end("whole", 20 * MS)
    assert meter.is_owed
    meter.feed(counters(30, 2))
    assert not meter.is_owed
    meter.end("streamed", 40 * MS)
    assert not meter.is_owed


@pytest.mark.parametrize("streamed", [True, False])
def test_requests_without_end_take_no_memory_without_end(streamed: bool) -> None:
    """An engine that is never read, and yet nothing piles up."""
    meter = EngineMeter("b")
    for number in range(10_000):
        meter.begin(str(number), number * SECOND, streamed=streamed)
        meter.end(str(number), number * SECOND + 1)
    assert len(meter._busy) < 100
    assert not meter._followed
