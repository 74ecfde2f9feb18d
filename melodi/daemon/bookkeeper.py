"""The thread between measuring and storing: hears of bins and requests, keeps the ledger."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue

import structlog

from collectors.base import Conditions
from melodi.clock import NS_PER_SECOND, Clock
from melodi.daemon.backends import Backends
from melodi.daemon.compose import Privacy, compose, service_of
from melodi.energy.ledger import MAX_OPEN_NS, SILENCE_NS, Ledger
from melodi.energy.record import EnergyRecord
from melodi.energy.total import RequestEnergy
from melodi.inference.timeline import RequestTimeline
from melodi.metrics import Metrics
from melodi.sampling.sampler import Sample
from melodi.store.records import Batch
from melodi.store.writer import RecordWriter

TURN_SECONDS = 0.1

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Pending:
    """A request that is not final in the database yet."""

    timeline: RequestTimeline
    final: Future[EnergyRecord]
    conditions: dict[str, Conditions]


class Bookkeeper:
    """Owns the ledger. Takes timelines (a Recorder) and samples from any thread without waiting."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        host: str,
        writer: RecordWriter,
        clock: Clock,
        privacy: Privacy,
        metrics: Metrics,
        backends: Backends,
    ) -> None:
        self._ledger = ledger
        self._host = host
        self._writer = writer
        self._clock = clock
        self._privacy = privacy
        self._metrics = metrics
        self._backends = backends
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._pending: dict[str, _Pending] = {}
        self._ended: set[str] = set()
        self._conditions: dict[str, Conditions] = {}
        self._stopping = threading.Event()
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._run, name="melodi-books", daemon=True)

    @property
    def faults(self) -> list[str]:
        """What is wrong with the books at present; empty: nothing."""
        found = [] if self._fault is None else [self._fault]
        if self._thread.ident is not None and not self._thread.is_alive():
            found.append("the bookkeeper has stopped: records stay provisional; restart melodi")
        return found

    @property
    def idle_watts(self) -> dict[str, float]:
        """What has been learned of each domain's idle power."""
        with self._lock:
            return self._ledger.idle_watts

    def begin(self, timeline: RequestTimeline) -> None:
        """A request was sent."""
        self._pending[timeline.id] = _Pending(timeline, Future(), {})
        self._inbox.put(partial(self._on_begin, timeline))

    def end(self, timeline: RequestTimeline) -> None:
        """The request is over and its timeline complete."""
        self._metrics.request_seen(timeline)
        self._inbox.put(partial(self._on_end, timeline))

    def on_sample(self, sample: Sample) -> None:
        """A beat of the sampler."""
        self._metrics.sampler_beat(sample.late_ns, sample.missed)
        self._metrics.collector_up(sample.collector, not sample.failures)
        self._inbox.put(partial(self._on_sample, sample))

    def preview(self, request_id: str) -> EnergyRecord | None:
        """The record of a request that is not final yet, as far as it is known; else None."""
        pending = self._pending.get(request_id)
        if pending is None:
            return None
        with self._lock:
            energy = self._ledger.preview(request_id, self._clock.monotonic_ns())
        return None if energy is None else self._record(pending, energy, provisional=True)

    async def wait_final(self, request_id: str, seconds: float) -> EnergyRecord | None:
        """The final, stored record; None if it is unknown here or `seconds` were not enough."""
        pending = self._pending.get(request_id)
        if pending is None:
            return None
        waiting = asyncio.shield(asyncio.wrap_future(pending.final))
        try:
            return await asyncio.wait_for(waiting, seconds)
        except TimeoutError:
            return None

    def start(self) -> None:
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """Let open requests become final for up to `grace_seconds`, then close the books on all."""
        deadline_ns = self._clock.monotonic_ns() + round(grace_seconds * NS_PER_SECOND)
        while self._pending and self._thread.is_alive() and not self._fault:
            if self._clock.monotonic_ns() >= deadline_ns or self._stopping.wait(TURN_SECONDS / 2):
                break
        self._stopping.set()
        self._thread.join(timeout=5)
        self._turn(self._clock.monotonic_ns() + MAX_OPEN_NS + SILENCE_NS)

    def _run(self) -> None:
        while not self._stopping.wait(TURN_SECONDS):
            try:
                self._turn(self._clock.monotonic_ns())
                self._fault = None
            except Exception as error:
                self._fault = f"the books cannot be kept: {error!r}; see the log"
                log.exception("bookkeeping_failed")

    def _turn(self, now_ns: int) -> None:
        """Take in what has been heard, close what can be closed, hand it to the writer."""
        with self._lock:
            ended = self._take_in()
            offset_ns = self._clock.wall_ns() - self._clock.monotonic_ns()
            closing = self._ledger.advance(now_ns, wall_offset_ns=offset_ns)
            provisional = {
                name: self._ledger.posted(name, now_ns)
                for name in (closing.touched | ended) - closing.final.keys()
                if name in self._ended
            }
        records = [
            self._record(self._pending[name], energy, provisional=name in provisional)
            for name, energy in (provisional | closing.final).items()
        ]
        self._ended.difference_update(closing.final)
        self._metrics.ledger_minutes(closing.minutes)
        if records or closing.minutes:
            batch = Batch(host=self._host, records=tuple(records), minutes=tuple(closing.minutes))
            finals = [record for record in records if not record.provisional]
            stored = self._writer.submit(batch)
            stored.add_done_callback(lambda done: self._on_stored(done, finals))

    def _take_in(self) -> set[str]:
        """Empty the inbox; gives the requests that have ended since the last turn."""
        before = set(self._ended)
        while True:
            try:
                self._inbox.get_nowait()()
            except Empty:
                return self._ended - before
            except Exception:
                log.exception("a_fact_was_lost")

    def _on_begin(self, timeline: RequestTimeline) -> None:
        domains = self._backends.domains_of(timeline.backend)
        self._ledger.begin(timeline.id, domains, timeline.sent_ns)

    def _on_end(self, timeline: RequestTimeline) -> None:
        self._backends.identify(timeline)
        self._ledger.end(timeline.id, service_of(timeline))
        self._pending[timeline.id].conditions = dict(self._conditions)
        self._ended.add(timeline.id)

    def _on_sample(self, sample: Sample) -> None:
        for bin_ in sample.bins:
            self._ledger.add(bin_)
        for conditions in sample.conditions:
            self._conditions[conditions.domain] = conditions

    def _on_stored(self, done: Future[dict[str, int]], finals: list[EnergyRecord]) -> None:
        """In the writer's thread: tell those who wait, now that it is durable."""
        error = done.exception()
        for record in finals:
            pending = self._pending.pop(record.id)
            if error is not None:
                pending.final.set_exception(error)
            else:
                stored = replace(record, seq=done.result()[record.id])
                self._metrics.record_final(stored)
                pending.final.set_result(stored)

    def _record(
        self, pending: _Pending, energy: RequestEnergy, *, provisional: bool
    ) -> EnergyRecord:
        return compose(
            pending.timeline,
            energy,
            host=self._host,
            privacy=self._privacy,
            provisional=provisional,
            conditions=pending.conditions,
        )
