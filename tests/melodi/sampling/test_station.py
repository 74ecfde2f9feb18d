"""Curves are fed many passes at a time, by whoever asks, and nobody who reads waits for that."""

import random
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from waiting import PATIENCE_SECONDS

from collectors.base import Domain, Failure, Kind, Measure, Reading, Readings
from collectors.errors import ReadFailed
from melodi.clock import VirtualClock
from melodi.energy.bins import Bin
from melodi.energy.window import Cut
from melodi.sampling.reader import Pass
from melodi.sampling.station import Sample, Station

MS = 1_000_000
PERIOD_NS = 50 * MS
WATTS = 100
GPU = Domain(
    name="gpu:a", kind=Kind.GPU, scope="gpu", source="test", measure=Measure.COUNTER, refresh_ns=MS
)


class Desk:
    """A station in virtual time, whose meter shows WATTS, and all that it told."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.told: list[Sample] = []
        self.late_ns: list[int] = []
        """How long after a bin's end it was told of."""
        self.station = Station("a", period_ns=PERIOD_NS, clock=self.clock, on_sample=self.on_sample)
        self.station.measure([GPU], {})

    @property
    def bins(self) -> list[Bin]:
        return [bin_ for one in self.told for bin_ in one.bins]

    def on_sample(self, sample: Sample) -> None:
        self.told.append(sample)
        self.late_ns += [self.clock.monotonic_ns() - bin_.end_ns for bin_ in sample.bins]

    def beat(self, readings: Readings | None = None) -> None:
        """Read the meter, one period later."""
        self.clock.advance(PERIOD_NS)
        self.station.take(one_pass(self.clock.monotonic_ns(), readings))


def one_pass(at_ns: int, readings: Readings | None = None, *, energy_uj: int | None = None) -> Pass:
    """What was read at that time: by itself, what a power of WATTS adds up to."""
    if readings is None:
        energy_uj = at_ns * WATTS // 1_000 if energy_uj is None else energy_uj
        readings = Readings((Reading(GPU.name, at_ns, 0, energy_uj),))
    return Pass("a", 0, 0, at_ns, 0, at_ns + PERIOD_NS, PERIOD_NS, readings)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_curves_grow_within_a_second_though_nobody_asks(desk: Desk) -> None:
    """The books may be dead: whoever reads the meter feeds its curves then, many at a time."""
    told_at = []
    for _ in range(100):
        desk.beat()
        told_at.append(len(desk.told))
    assert max(desk.late_ns) < 1_000 * MS
    assert desk.clock.monotonic_ns() - desk.bins[-1].end_ns < 1_000 * MS
    assert sum(later > earlier for earlier, later in pairwise(told_at)) <= 10


def test_whoever_asks_a_curve_sees_all_that_was_read(desk: Desk) -> None:
    """At once, each time, and only what is new is fed."""
    for count in range(1, 10):
        desk.beat()
        assert len(desk.told) == count - 1
        edges = desk.station.curves[GPU.name].edges
        assert len(desk.told) == count
    assert edges[-1].total_uj == 7 * PERIOD_NS * WATTS // 1_000
    desk.beat()
    cut = desk.station.curves[GPU.name].cut(desk.clock.monotonic_ns() - MS)
    assert isinstance(cut, Cut)


def test_a_failing_meter_is_known_before_anybody_feeds(desk: Desk) -> None:
    """What is wrong with a meter does not wait for its energy; nor does its end."""
    failed = Readings((), (Failure(GPU.name, ReadFailed("no answer")),))
    desk.beat()
    assert desk.station.is_up
    with capture_logs() as said:
        for _ in range(5):
            desk.beat(failed)
        assert not desk.station.is_up
        assert "no answer" in str(desk.station.fault)
        desk.beat()
        assert desk.station.fault is None
    assert [one["event"] for one in said] == ["meter_fails", "meter_back"]
    assert desk.told == []


def test_who_reads_goes_on_while_another_feeds_and_no_joule_is_lost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes: beyond what is kept the oldest edges go, and a counter counts on."""
    monkeypatch.setattr("melodi.sampling.station.MOST_WAITING", 20)
    desk = Desk()
    feeding, release = threading.Event(), threading.Event()

    def held_up(sample: Sample) -> None:
        feeding.set()
        release.wait(PATIENCE_SECONDS)
        desk.on_sample(sample)

    for _ in range(3):
        desk.beat()
    desk.station.feed()
    desk.station._on_sample = held_up
    desk.beat()
    feeder = threading.Thread(target=desk.station.feed)
    feeder.start()
    assert feeding.wait(PATIENCE_SECONDS)
    reader = threading.Thread(target=lambda: [desk.beat() for _ in range(100)])
    reader.start()
    reader.join(PATIENCE_SECONDS)
    assert not reader.is_alive()
    assert len(desk.told) == 3
    release.set()
    feeder.join(PATIENCE_SECONDS)
    assert len(desk.told) == 3 + 1 + 20
    # The curve begins with the first change, which the second reading saw.
    assert desk.bins[-1].total_uj == (3 + 1 + 100 - 2) * PERIOD_NS * WATTS // 1_000


def test_a_sample_that_nobody_can_use_is_a_fault_and_the_curve_grows(desk: Desk) -> None:
    """A bug in whoever is told ends neither the reading nor the feeding, and is said once."""

    def broken(_: Sample) -> None:
        raise RuntimeError("a bug")

    desk.station._on_sample = broken
    with capture_logs() as said:
        for _ in range(40):
            desk.beat()
    assert len(desk.station.curves[GPU.name]._edges) > 10
    assert "a bug" in str(desk.station.fault)
    assert [one["event"] for one in said] == ["readings_unused"]
    desk.station._on_sample = desk.on_sample
    desk.beat()
    desk.station.feed()
    assert desk.station.fault is None


def test_who_is_told_of_a_sample_may_ask_a_curve(desk: Desk) -> None:
    """It stands in the midst of feeding then, and waits for nobody."""
    seen: list[int] = []
    desk.station._on_sample = lambda _: seen.append(len(desk.station.curves[GPU.name].edges))
    feeder = threading.Thread(target=lambda: [desk.beat() for _ in range(40)], daemon=True)
    feeder.start()
    feeder.join(PATIENCE_SECONDS)
    assert not feeder.is_alive()
    assert seen


def test_a_curve_that_another_meter_takes_over_has_been_fed_to_the_end(desk: Desk) -> None:
    """What the one before it read is told before the change is."""
    for _ in range(5):
        desk.beat()
    curve = desk.station.curves[GPU.name]
    desk.station.feed()
    other = Station("b", period_ns=PERIOD_NS, clock=desk.clock, on_sample=desk.on_sample)
    other.measure([GPU], dict(desk.station.curves))
    assert other.curves[GPU.name] is curve
    desk.clock.advance(PERIOD_NS)
    other.take(one_pass(desk.clock.monotonic_ns()))
    assert len(curve.edges) == 5
    assert desk.bins[-1].reason == "meter_changed"


@given(st.lists(st.booleans(), max_size=60), st.randoms(use_true_random=False))
def test_bins_do_not_depend_on_when_curves_are_fed(asked: list[bool], steps: random.Random) -> None:
    """Fed one by one or many at a time, they are the same."""
    one_by_one, at_times = Desk(), Desk()
    energy_uj = 0
    for number, asks in enumerate(asked):
        energy_uj += steps.randrange(3)
        one = one_pass(number * PERIOD_NS, energy_uj=energy_uj)
        one_by_one.station.take(one)
        one_by_one.station.feed()
        at_times.station.take(one)
        if asks:
            at_times.station.feed()
    at_times.station.feed()
    assert at_times.told == one_by_one.told


@pytest.mark.usefixtures("hasty")
def test_fed_by_many_threads_at_once_a_curve_is_the_same_as_by_one() -> None:
    """In order, each pass once, while the meter is read on."""
    steps = random.Random(7)
    passes, energy_uj = [], 0
    for number in range(3_000):
        energy_uj += steps.randrange(3)
        passes.append(one_pass(number * PERIOD_NS, energy_uj=energy_uj))
    alone, crowded = Desk(), Desk()
    for one in passes:
        alone.station.take(one)
    alone.station.feed()
    finished = threading.Event()

    def ask() -> None:
        while not finished.is_set():
            crowded.station.curves[GPU.name].cut(0)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for one in passes:
        crowded.station.take(one)
    finished.set()
    for asker in askers:
        asker.join(PATIENCE_SECONDS)
    crowded.station.feed()
    assert crowded.station.fault == alone.station.fault
    assert crowded.told == alone.told
    assert list(crowded.station.curves[GPU.name].edges) == list(
        alone.station.curves[GPU.name].edges
    )
