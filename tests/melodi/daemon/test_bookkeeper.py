"""What the bookkeeper hands to the writer, and when."""

from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from collectors.base import Domain, Kind, Measure
from melodi.clock import VirtualClock
from melodi.daemon.backends import Backends, Charge
from melodi.daemon.bookkeeper import Bookkeeper
from melodi.daemon.compose import Privacy
from melodi.daemon.delivery import Delivery
from melodi.daemon.outbox import ROW_AFTER_NS
from melodi.energy.bins import Bin
from melodi.energy.ledger import Ledger
from melodi.energy.policies import policies_for
from melodi.energy.record import Status
from melodi.energy.tally import DomainFacts
from melodi.ids import new_id
from melodi.inference.timeline import RequestTimeline
from melodi.metrics import Metrics
from melodi.sampling.station import Sample
from melodi.store.records import Batch
from melodi.store.spool import Spool
from melodi.store.writer import RecordWriter

PACKAGE = "package:0"
TENTH_NS = 100_000_000
WATTS = 90


class Writer:
    """Stores at once, and remembers which records came and whether they were final."""

    pending = 0

    def __init__(self) -> None:
        self.written: list[tuple[str, bool]] = []
        self.joules = 0.0
        self.kept: list[Bin] = []

    def submit(self, batch: Batch) -> Future[dict[str, int]]:
        done: Future[dict[str, int]] = Future()
        self.written += [(record.id, not record.provisional) for record in batch.records]
        self.joules += sum(minute.measured_joules for minute in batch.minutes)
        self.kept += (bin_ for part in batch.kept for bin_ in part.bins)
        final = [record.id for record in batch.records if not record.provisional]
        done.set_result({id_: number for number, id_ in enumerate(final, start=1)})
        return done


class OneDomain:
    """Backends that all run on the package."""

    domains: tuple[str, ...] = (PACKAGE,)

    def charge(self, name: str, model: str | None) -> Charge:
        del name, model
        return Charge(self.domains, "settings")

    def doubts(self, *words: object) -> tuple[str, ...]:
        del words
        return ()

    def identify(self, timeline: RequestTimeline) -> None:
        pass


class Desk:
    """A bookkeeper in virtual time, with a meter that is read every 100 ms."""

    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock(monotonic_ns=10**12)
        self.writer = Writer()
        self.backends = OneDomain()
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        metrics.ledger.know_domains(
            [
                Domain(
                    name=PACKAGE,
                    kind=Kind.CPU,
                    scope="package",
                    source="rapl:powercap",
                    measure=Measure.COUNTER,
                )
            ]
        )
        facts = DomainFacts(
            name=PACKAGE,
            kind="cpu",
            scope="package",
            source="rapl:powercap",
            origin="sensor",
            refresh_ns=TENTH_NS,
        )
        self.books = Bookkeeper(
            Ledger([facts], policies=partial(policies_for, "auto"), idle_watts={PACKAGE: 20.0}),
            delivery=Delivery(
                host="h",
                writer=cast(RecordWriter, self.writer),
                spool=Spool(folder / "spool"),
                privacy=Privacy("hash", b"key"),
                metrics=metrics,
            ),
            clock=self.clock,
            metrics=metrics,
            backends=cast(Backends, self.backends),
            feed=self._feed,
        )
        self._unfed: list[Sample] = []
        self._total_uj = 0

    @property
    def closed_joules(self) -> float:
        """What was measured in closed bins."""
        labels = {"domain": PACKAGE, "kind": "cpu"}
        return self.registry.get_sample_value("melodi_energy_joules_total", labels) or 0.0

    def begin(self) -> RequestTimeline:
        """A request is sent now."""
        timeline = RequestTimeline(
            id=new_id(self.clock.wall_ns()),
            backend="b",
            backend_kind="vllm",
            wall_ns=self.clock.wall_ns(),
            sent_ns=self.clock.monotonic_ns(),
        )
        timeline.reached = True
        self.books.begin(timeline)
        return timeline

    def end(self, timeline: RequestTimeline) -> None:
        """It has been answered now."""
        timeline.end_ns = self.clock.monotonic_ns()
        timeline.status = Status.OK
        self.books.end(timeline)

    def read(self) -> None:
        """Read the meter after 100 ms; the books hear of it when they ask."""
        start_ns = self.clock.monotonic_ns()
        self.clock.advance(TENTH_NS)
        self._total_uj += WATTS * TENTH_NS // 1_000
        bin_ = Bin(
            domain=PACKAGE,
            start_ns=start_ns,
            end_ns=start_ns + TENTH_NS,
            energy_uj=WATTS * TENTH_NS // 1_000,
            total_uj=self._total_uj,
            half_width_ns=0,
        )
        no: Any = ()
        self._unfed.append(Sample("rapl", late_ns=0, missed=0, bins=(bin_,), failures=no))

    def pass_time(self, tenths: int) -> None:
        """Read the meter and turn the books every 100 ms."""
        for _ in range(tenths):
            self.read()
            self.books._turn(self.clock.monotonic_ns())

    def _feed(self) -> None:
        unfed, self._unfed = self._unfed, []
        for sample in unfed:
            self.books.on_sample(sample)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_request_that_is_soon_final_is_written_once(desk: Desk) -> None:
    """Its provisional row would be replaced before anybody read it."""
    one = desk.begin()
    desk.clock.advance(TENTH_NS // 20)
    desk.end(one)
    desk.pass_time(20)
    assert desk.writer.written == [(one.id, True)]


def test_a_request_that_must_wait_for_others_has_a_row_meanwhile(desk: Desk) -> None:
    """A kill within minutes of waiting must not lose it."""
    other = desk.begin()
    one = desk.begin()
    desk.pass_time(2)
    desk.end(one)
    desk.pass_time(ROW_AFTER_NS // TENTH_NS - 1)
    assert desk.writer.written == []
    desk.pass_time(1)
    assert desk.writer.written == [(one.id, False)]
    desk.pass_time(20)
    assert desk.writer.written == [(one.id, False)]
    desk.end(other)
    desk.pass_time(20)
    final = sorted(id_ for id_, is_final in desk.writer.written if is_final)
    assert final == sorted([one.id, other.id])


async def test_whoever_waits_hears_of_the_final_record(desk: Desk) -> None:
    """Nothing is kept for those who do not, and a request that is unknown is None at once."""
    one = desk.begin()
    desk.end(one)
    assert await desk.books.wait_final("unknown", 5) is None
    assert await desk.books.wait_final(one.id, 0.001) is None
    desk.pass_time(20)
    assert await desk.books.wait_final(one.id, 5) is None


async def test_final_records_wait_for_others_unless_somebody_waits(desk: Desk) -> None:
    """While requests run one writing carries what a second brought; it can be read before."""
    one = desk.begin()
    desk.end(one)
    desk.pass_time(1)
    desk.begin()
    desk.pass_time(2)
    assert desk.writer.written == []
    shown = desk.books.preview(one.id)
    assert shown is not None
    assert shown.provisional
    assert await desk.books.wait_final(one.id, 0.001) is None
    desk.pass_time(1)
    assert desk.writer.written == [(one.id, True)]


async def test_bins_close_together_unless_somebody_asks(desk: Desk) -> None:
    """Many cost little more than few; whoever waits has them closed as soon as they may be."""
    closed, one = [], desk.begin()
    for tenth in range(30):
        before, one = one, desk.begin()
        desk.end(before)
        if tenth >= 20:
            assert await desk.books.wait_final(one.id, 0.001) is None
        desk.pass_time(1)
        closed.append(desk.closed_joules)
    assert len(set(closed[10:20])) == 3
    assert len(set(closed[20:])) == 10


def test_no_bins_are_closed_before_the_meters_are_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they are closed for: else who reads must feed, in a thread that is to rest."""
    advance = desk.books._ledger.advance
    unfed: list[int] = []

    def noting(*args: Any, **more: Any) -> Any:
        unfed.append(len(desk._unfed))
        return advance(*args, **more)

    monkeypatch.setattr(desk.books._ledger, "advance", noting)
    for _ in range(20):
        one = desk.begin()
        desk.begin()
        desk.pass_time(3)
        desk.end(one)
    assert len(unfed) > 10
    assert set(unfed) == {0}


def test_what_is_shown_of_a_request_holds_all_that_was_read_by_then(desk: Desk) -> None:
    """Whoever asks first, after a time when nobody did, need not wait for the books' next turn."""
    one = desk.begin()
    desk.pass_time(10)
    before = desk.books.preview(one.id)
    desk.read()
    desk.end(one)
    shown = desk.books.preview(one.id)
    assert before is not None
    assert shown is not None
    assert (before.energy_joules or 0) == pytest.approx(WATTS * 1.0)
    assert shown.energy_joules == pytest.approx(WATTS * 1.1)


def test_who_is_taken_in_between_two_steps_of_a_turn_has_a_begin_line_before_a_row(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever is shown a request; one on no meter is final at once."""
    desk.backends.domains = ()
    said: list[str] = []
    advance, submit = desk.books._ledger.advance, desk.writer.submit

    def after_another(*args: Any, **more: Any) -> Any:
        if not desk.books._pending:
            desk.end(desk.begin())
            desk.books._take_in()
        return advance(*args, **more)

    def noting(batch: Batch) -> Any:
        said.extend(["row"] * len(batch.records))
        return submit(batch)

    monkeypatch.setattr(desk.books._ledger, "advance", after_another)
    monkeypatch.setattr(desk.writer, "submit", noting)
    monkeypatch.setattr(
        desk.books._delivery.spool, "write", lambda lines: said.extend(["begin"] * len(lines))
    )
    desk.pass_time(1)
    assert said == ["begin", "row"]


def test_the_books_close_on_all_that_was_read_before_the_stop(desk: Desk) -> None:
    """The last turn asks the meters' threads once more."""
    desk.books.start()
    for _ in range(6):
        desk.read()
    desk.books.stop(0)
    assert desk.closed_joules == pytest.approx(WATTS * 0.6)


def test_final_records_are_written_at_once_where_nothing_runs(desk: Desk) -> None:
    """Nothing is gained by waiting for more."""
    one = desk.begin()
    desk.end(one)
    desk.pass_time(3)
    assert desk.writer.written == [(one.id, True)]


def test_a_record_that_cannot_be_made_takes_no_joules_with_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a defect lasts nothing is written; then all that was closed is, to the first bin."""
    minute = 60 * 10
    one = desk.begin()
    desk.end(one)
    with monkeypatch.context() as patch:
        patch.setattr("melodi.daemon.delivery.with_energy", lambda *_, **__: 1 / 0)
        for _ in range(2 * minute):
            with suppress(ZeroDivisionError):
                desk.pass_time(1)
        assert desk.writer.joules == 0
    desk.pass_time(2 * minute)
    assert desk.writer.written == [(one.id, True)]
    assert desk.writer.joules == pytest.approx(desk.closed_joules, abs=WATTS * 2)
    assert desk.writer.kept[0].start_ns == 10**12
