"""The sampler keeps beating whatever its meters do, and says what failed."""

import threading
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from waiting import PATIENCE_SECONDS, wait_for

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
from collectors.registry import Probe, State
from melodi.clock import SystemClock, VirtualClock
from melodi.sampling.reader import Reader
from melodi.sampling.sampler import Sampler
from melodi.sampling.station import Sample

MS = 1_000_000


class Meter:
    """A counter of 100 W, asleep or awake, that fails, hangs and takes its time on demand."""

    def __init__(self, name: str, clock: VirtualClock | SystemClock) -> None:
        self.name = name
        self.failing: Exception | None = None
        self.hanging: threading.Event | None = None
        self.takes_ms = 0
        self.reads = 0
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
        self.reads += 1
        if self.hanging is not None:
            self.hanging.wait(PATIENCE_SECONDS)
        if self.takes_ms:
            self._clock.advance(self.takes_ms * MS)
        now_ns = self._clock.monotonic_ns()
        if isinstance(self.failing, ReadFailed):
            return Readings((), (Failure(self.domains[0].name, self.failing),))
        if self.failing is not None:
            raise self.failing
        energy_uj = self._clock.boottime_ns() // 10
        return Readings((Reading(self.domains[0].name, now_ns, 0, energy_uj=energy_uj),))

    def conditions(self) -> tuple[Conditions, ...]:
        if self.failing is not None:
            raise self.failing
        return (Conditions(domain=self.domains[0].name, at_ns=self._clock.monotonic_ns()),)

    def close(self) -> None:
        self.closed = True


def probes_of(*meters: Meter) -> list[Probe]:
    return [Probe(name=one.name, state=State.OK, collector=one) for one in meters]


def sampler_of(
    meters: list[Meter], clock: VirtualClock | SystemClock, samples: list[Sample]
) -> Sampler:
    return Sampler(
        probes_of(*meters),
        period_of={"a": 50 * MS, "b": 100 * MS}.__getitem__,
        clock=clock,
        on_sample=samples.append,
    )


def run(sampler: Sampler, clock: VirtualClock, ms: int) -> None:
    end_ns = clock.monotonic_ns() + ms * MS
    while sampler.next_deadline_ns <= end_ns:
        clock.advance(max(0, sampler.next_deadline_ns - clock.monotonic_ns()))
        sampler.beat()
    sampler.feed()
    clock.advance(max(0, end_ns - clock.monotonic_ns()))


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a meter hangs on, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


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
    sampler.feed()
    assert (samples[-1].late_ns, samples[-1].missed) == (170 * MS, 3)


def test_the_thread_beats_and_stops_and_closes_its_meters() -> None:
    """Started and stopped for real."""
    clock, seen = SystemClock(), threading.Event()
    meter = Meter("a", clock)
    sampler = Sampler(
        probes_of(meter),
        period_of=lambda _: 5 * MS,
        clock=clock,
        on_sample=lambda sample: seen.set() if sample.bins else None,
    )
    sampler.start()
    assert seen.wait(PATIENCE_SECONDS)
    sampler.stop()
    assert meter.closed


def test_a_stop_does_not_wait_for_the_next_beat() -> None:
    """A meter that is read once an hour is closed at once."""
    clock = SystemClock()
    meter = Meter("a", clock)
    sampler = Sampler(
        probes_of(meter),
        period_of=lambda _: 3_600_000 * MS,
        clock=clock,
        on_sample=lambda _: None,
    )
    sampler.start()
    wait_for(lambda: meter.reads)
    sampler.stop()
    assert meter.closed


def test_a_meter_that_hangs_is_named_and_holds_up_no_other(release: threading.Event) -> None:
    """The other goes on; the fault says for how long, and ends with the hanging."""
    clock, samples = VirtualClock(), []
    hung, fine = Meter("a", clock), Meter("b", clock)
    hung.hanging = release
    sampler = sampler_of([hung, fine], clock, samples)
    sampler.start()
    wait_for(lambda: hung.reads and fine.reads)
    clock.advance(990 * MS)
    wait_for(lambda: fine.reads > 1)
    assert sampler.faults == []
    clock.advance(20 * MS)
    assert sampler.faults == ["a has not answered for 1 s"]
    assert [one.is_up for one in sampler.stations] == [False, True]
    release.set()
    wait_for(lambda: not sampler.faults)
    assert sampler.stations[0].is_up
    sampler.stop()


def test_a_meter_that_hangs_at_the_stop_is_left_open_and_the_log_says_so(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing what another thread reads could take the process with it; the others close."""
    monkeypatch.setattr("melodi.sampling.readers.STOP_SECONDS", 2)
    clock = SystemClock()
    hung, fine = Meter("a", clock), Meter("b", clock)
    hung.hanging = release
    sampler = sampler_of([hung, fine], clock, [])
    sampler.start()
    wait_for(lambda: hung.reads)
    with capture_logs() as said:
        sampler.stop()
    assert (hung.closed, fine.closed) == (False, True)
    assert ("meter_left_open", "a") in [(one["event"], one.get("collector")) for one in said]


def test_a_slow_meter_is_read_half_as_often_and_only_once_less() -> None:
    """Five passes in a row that take over a fifth of the period; one alone changes nothing."""
    clock = VirtualClock()
    meter = Meter("a", clock)
    sampler = sampler_of([meter], clock, [])
    (station,) = sampler.stations
    meter.takes_ms = 11
    sampler.beat()
    meter.takes_ms = 0
    run(sampler, clock, 300)
    assert station.period_ns == 50 * MS
    meter.takes_ms = 11
    with capture_logs() as said:
        run(sampler, clock, 2_000)
    assert station.period_ns == 100 * MS
    meter.takes_ms = 30
    run(sampler, clock, 2_000)
    assert station.period_ns == 100 * MS
    assert [one["event"] for one in said] == ["meter_is_slow"]
    assert sampler.faults == []
    before = meter.reads
    run(sampler, clock, 1_000)
    assert meter.reads - before == 10


def test_a_sleep_of_the_machine_is_one_unmeasured_bin_of_every_curve() -> None:
    """What was used asleep is in the counter and in no bin; what follows is measured again."""
    clock, samples = VirtualClock(), []
    sampler = sampler_of([Meter("a", clock), Meter("b", clock)], clock, samples)
    run(sampler, clock, 500)
    clock.suspend(3_600_000 * MS)
    run(sampler, clock, 500)
    bins = {name: [] for name in sampler.curves}
    for one in (bin_ for sample in samples for bin_ in sample.bins):
        bins[one.domain].append(one)
    for found in bins.values():
        assert [one.reason for one in found if one.reason] == ["suspended"]
        unknown = next(one for one in found if one.energy_uj is None)
        assert unknown.reason == "suspended"
        assert unknown.length_ns < 250 * MS
        assert unknown.start_ns < 500 * MS < unknown.end_ns
        measured_uj = sum(one.energy_uj for one in found if one.energy_uj is not None)
        awake_ns = found[-1].end_ns - found[0].start_ns - unknown.length_ns
        assert measured_uj == pytest.approx(awake_ns / 10, abs=MS)
        assert found[-1].total_uj == measured_uj


def test_a_pause_under_a_second_is_no_sleep() -> None:
    """The two clocks are not read at the same moment."""
    clock, samples = VirtualClock(), []
    sampler = sampler_of([Meter("a", clock)], clock, samples)
    for _ in range(10):
        clock.suspend(900 * MS)
        run(sampler, clock, 100)
    assert not [one for sample in samples for one in sample.bins if one.reason]


def test_a_meter_that_is_named_anew_as_it_takes_its_place_is_not_closed() -> None:
    """The one before is closed, once, and the new one is read on."""
    clock = VirtualClock()
    old, new = Meter("a", clock), Meter("a", clock)
    reader = Reader(old, period_ns=50 * MS, clock=clock)
    reader.succeed(new)
    assert reader.beat() is not None
    assert (old.closed, new.closed, old.reads, new.reads) == (True, False, 0, 1)
    reader._successor = new
    clock.advance(50 * MS)
    assert reader.beat() is not None
    assert (new.closed, new.reads) == (False, 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_a_fault_until_the_stop() -> None:
    """A bug in whoever takes the samples is not silence."""

    def broken(_: Sample) -> None:
        raise SystemExit

    clock = SystemClock()
    sampler = Sampler(
        probes_of(Meter("a", clock)), period_of=lambda _: 5 * MS, clock=clock, on_sample=broken
    )
    sampler.start()
    wait_for(lambda: sampler.faults)
    assert sampler.faults[0].startswith("the sampler of a has died")
    sampler.stop()
    assert sampler.faults == []
