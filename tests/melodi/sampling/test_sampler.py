"""The sampler keeps beating whatever its meters do, and says what failed."""

import threading

import pytest

from collectors.base import (
    Conditions,
    Domain,
    Failure,
    Kind,
    Measure,
    Reading,
    Readings,
)
from collectors.errors import ReadFailed
from melodi.clock import SystemClock, VirtualClock
from melodi.sampling.sampler import Sample, Sampler

MS = 1_000_000


class Meter:
    """A counter of 100 W on the given clock that fails on demand."""

    def __init__(self, name: str, clock: VirtualClock | SystemClock) -> None:
        self.name = name
        self.failing: Exception | None = None
        self.closed = False
        self._clock = clock
        self.domains = (
            Domain(
                name=f"gpu:{name}",
                kind=Kind.GPU,
                scope="gpu",
                source="test",
                measure=Measure.COUNTER,
                refresh_ns=MS,
            ),
        )

    def read(self) -> Readings:
        now_ns = self._clock.monotonic_ns()
        if isinstance(self.failing, ReadFailed):
            return Readings((), (Failure(self.domains[0].name, self.failing),))
        if self.failing is not None:
            raise self.failing
        return Readings((Reading(self.domains[0].name, now_ns, 0, energy_uj=now_ns // 10),))

    def conditions(self) -> tuple[Conditions, ...]:
        if self.failing is not None:
            raise self.failing
        return (Conditions(domain=self.domains[0].name, at_ns=self._clock.monotonic_ns()),)

    def close(self) -> None:
        self.closed = True


def sampler_of(
    meters: list[Meter], clock: VirtualClock | SystemClock, samples: list[Sample]
) -> Sampler:
    return Sampler(
        meters,
        periods_ns={"a": 50 * MS, "b": 100 * MS},
        clock=clock,
        on_sample=samples.append,
    )


def run(sampler: Sampler, clock: VirtualClock, ms: int) -> None:
    end_ns = clock.monotonic_ns() + ms * MS
    while sampler.next_deadline_ns <= end_ns:
        clock.advance(max(0, sampler.next_deadline_ns - clock.monotonic_ns()))
        sampler.beat()
    clock.advance(end_ns - clock.monotonic_ns())


def test_each_collector_beats_at_its_own_period() -> None:
    """20 Hz and 10 Hz in one loop, and the curves hold what the counters gained."""
    clock, samples = VirtualClock(), []
    sampler = sampler_of([Meter("a", clock), Meter("b", clock)], clock, samples)
    run(sampler, clock, 1_000)
    assert [one.collector for one in samples].count("a") == 21
    assert [one.collector for one in samples].count("b") == 11
    edges = sampler.curves["gpu:a"].edges
    assert edges[-1].total_uj == (1_000 - 50) * MS // 10
    assert sum(len(one.conditions) for one in samples if one.collector == "a") == 2


@pytest.mark.parametrize("error", [ReadFailed("no answer"), RuntimeError("a bug in a meter")])
def test_a_meter_that_fails_does_not_stop_the_others_and_comes_back(error: Exception) -> None:
    """The failure is data, a fault after five in a row, and gone when the meter is back."""
    clock, samples = VirtualClock(), []
    bad = Meter("a", clock)
    sampler = sampler_of([bad, Meter("b", clock)], clock, samples)
    run(sampler, clock, 200)
    bad.failing = error
    run(sampler, clock, 200)
    assert sampler.faults == []
    run(sampler, clock, 200)
    assert "gpu:a" in sampler.faults[0]
    assert str(error) in sampler.faults[0]
    assert any(one.failures for one in samples if one.collector == "a")
    assert not any(one.failures for one in samples if one.collector == "b")
    bad.failing = None
    run(sampler, clock, 200)
    assert sampler.faults == []
    assert sampler.curves["gpu:a"].edges[-1].total_uj == (800 - 50) * MS // 10


def test_a_late_beat_is_data() -> None:
    """A pause of 170 ms shows as lateness and missed beats."""
    clock, samples = VirtualClock(), []
    sampler = sampler_of([Meter("a", clock)], clock, samples)
    sampler.beat()
    clock.advance(220 * MS)
    sampler.beat()
    assert (samples[-1].late_ns, samples[-1].missed) == (170 * MS, 3)


def test_the_thread_beats_and_stops_and_closes_its_meters() -> None:
    """Started and stopped for real."""
    clock, seen = SystemClock(), threading.Event()
    meter = Meter("a", clock)
    sampler = Sampler(
        [meter],
        periods_ns={"a": 5 * MS},
        clock=clock,
        on_sample=lambda sample: seen.set() if sample.bins else None,
    )
    sampler.start()
    assert seen.wait(5)
    sampler.stop()
    assert meter.closed
