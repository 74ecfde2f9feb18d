"""The thread between measuring and storing: hears of bins and requests, keeps the ledger."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue

import structlog

from collectors.base import Conditions
from melodi.clock import NS_PER_MINUTE, NS_PER_SECOND, Clock
from melodi.daemon.backends import Backends, Charge
from melodi.daemon.delivery import Delivery
from melodi.daemon.keeping import Keeper
from melodi.daemon.outbox import Outbox
from melodi.daemon.pending import Pending
from melodi.daemon.service import service_of
from melodi.energy.engine import EngineSteps
from melodi.energy.ledger import LATEST_NS, Closing, Ledger
from melodi.energy.record import EnergyRecord
from melodi.energy.tally import DomainFacts
from melodi.energy.usage import Usage
from melodi.inference.timeline import RequestTimeline
from melodi.metrics import Metrics
from melodi.sampling.station import Sample

TURN_SECONDS = 0.1
PAUSE_SECONDS = 0.005
CLOSE_EVERY_NS = NS_PER_SECOND // 2
"""While requests run and nobody asks what they took: many bins cost little more than few."""
ASKED_LATELY_NS = NS_PER_SECOND
BINS_A_TURN = 50
"""So that nobody waits long for the lock."""
MOST_WAITING = 200_000
"""Facts in the inbox, beyond which nobody reads them: requests that come have no record."""

log = structlog.get_logger(__name__)


class Bookkeeper:
    """Owns the ledger. Takes timelines (a Recorder) and samples from any thread without waiting.

    `feed` has all that the meters have read told to `on_sample`, before bins are closed.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        delivery: Delivery,
        clock: Clock,
        metrics: Metrics,
        backends: Backends,
        feed: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._delivery = delivery
        self._pending = delivery.pending
        self._clock = clock
        self._metrics = metrics
        self._backends = backends
        self._feed = feed
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        # Of ledger, outbox and keeper: who holds it may empty the inbox.
        self._lock = threading.Lock()
        self._begun: list[RequestTimeline] = []
        self._running = 0
        self._outbox = Outbox(clock.monotonic_ns())
        self._asked_ns = self._closed_ns = 0
        self._keeper = Keeper(lambda: ledger.facts)
        self._conditions: dict[str, Conditions] = {}
        self._stopping = threading.Event()
        self._fault: str | None = None
        self._has_refused = False
        self._thread = threading.Thread(target=self._run, name="melodi-books", daemon=True)
        self.idle_watts: Mapping[str, float] = ledger.idle_watts
        """What has been learned of each domain's idle power."""

    @property
    def faults(self) -> list[str]:
        """What is wrong with the books at present; empty: nothing."""
        found = [] if self._fault is None else [self._fault]
        if (reason := self._delivery.spool.fault) is not None:
            found.append(
                f"begin lines cannot be written: {reason}; make room there, or else "
                "a kill loses the requests that run"
            )
        if self._has_died:
            found.append("the bookkeeper has stopped: records stay provisional; restart melodi")
        if self._has_refused:
            found.append("the books were full: requests that came then have no record; see the log")
        return found

    @property
    def in_flight(self) -> int:
        """Requests that have begun and not ended."""
        return self._pending.in_flight

    @property
    def settle_seconds(self) -> float:
        """How long after its end a request alone is settled."""
        return self._ledger.settle_ns / NS_PER_SECOND

    def begin(self, timeline: RequestTimeline) -> None:
        """A request was sent. It has no record where the books are full."""
        if self._is_full:
            self._has_refused = True
            return
        # Meters and processes may come before it is taken in: it is charged to what is known now.
        charge = self._backends.charge(timeline.backend, timeline.model)
        self._pending.add(Pending(timeline, charge))
        self._inbox.put(partial(self._on_begin, timeline, charge))

    def end(self, timeline: RequestTimeline) -> None:
        """The request is over and its timeline complete, which may be another object by now."""
        pending = self._pending.get(timeline.id)
        if pending is not None:
            pending.timeline = timeline
            self._inbox.put(partial(self._on_end, timeline))

    def introduce(self, facts: DomainFacts) -> None:
        """A domain is measured from now on, or by another meter."""
        self._inbox.put(partial(self._ledger.introduce, facts))

    def on_sample(self, sample: Sample) -> None:
        """A beat of the sampler."""
        self._hear(partial(self._on_sample, sample))

    def on_usage(self, usage: Usage) -> None:
        """What parts the backends had in a domain's work for a while."""
        self._hear(partial(self._on_usage, usage))

    def on_steps(self, told: EngineSteps) -> None:
        """What a backend's engine did for a while."""
        self._hear(partial(self._on_steps, told))

    def preview(self, request_id: str) -> EnergyRecord | None:
        """The record of a request that is not final in the database; else None. May take a while.

        One that could not be stored is remembered for a time, with the reason `not_stored`.
        """
        pending = self._pending.get(request_id)
        if pending is None:
            return self._pending.unstored(request_id)
        if pending.composed is None:
            self._asked_ns = self._clock.monotonic_ns()
            self._feed()
            with self._lock:
                self._take_in()
                energy = self._outbox.final.get(request_id) or self._ledger.preview(
                    request_id, self._asked_ns
                )
            if energy is not None:
                return self._delivery.record(pending, energy, provisional=True)
        return None if pending.composed is None else replace(pending.composed, provisional=True)

    async def wait_final(self, request_id: str, seconds: float) -> EnergyRecord | None:
        """The final, stored record; None if it is unknown here or `seconds` were not enough."""
        return await self._pending.wait_final(request_id, seconds)

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
        while self._turn(self._clock.monotonic_ns() + LATEST_NS, last=True):
            pass

    def _hear(self, fact: Callable[[], None]) -> None:
        # A sample that is left out would leave its joules in no account: as long as the thread
        # lives, it may still get to it.
        if not (self._is_full and self._has_died):
            self._inbox.put(fact)

    @property
    def _has_died(self) -> bool:
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def _is_full(self) -> bool:
        return self._inbox.qsize() >= MOST_WAITING

    def _run(self) -> None:
        wait_seconds = TURN_SECONDS
        while not self._stopping.wait(wait_seconds):
            try:
                more = self._turn(self._clock.monotonic_ns())
                wait_seconds = PAUSE_SECONDS if more else TURN_SECONDS
                self._fault = None
            except Exception as error:
                fault = f"the books cannot be kept: {error!r}; see the log"
                if fault != self._fault:
                    log.exception("bookkeeping_failed")
                self._fault = fault

    def _turn(self, now_ns: int, *, last: bool = False) -> bool:
        """Take in what has been heard, close some of what can be closed, hand it to the writer.

        Gives whether there is more to close.
        """
        with self._lock:
            due = last or self._outbox.is_due(now_ns, busy=self._delivery.is_behind)
        closes = due or self._is_time_to_close(now_ns)
        if closes:
            self._feed()
        with self._lock:
            self._take_in()
        self._spool_begun()
        if not closes:
            return False
        closing = self._close(now_ns)
        if due or (not closing.more and self._is_urgent()):
            self._write(now_ns, everything=last and not closing.more)
        return closing.more

    def _is_time_to_close(self, now_ns: int) -> bool:
        """Whether somebody asks what bins hold, nothing is going on, or they have waited enough."""
        if now_ns - self._closed_ns >= CLOSE_EVERY_NS or self._running == 0:
            return True
        return self._pending.is_awaited or now_ns - self._asked_ns < ASKED_LATELY_NS

    def _is_urgent(self) -> bool:
        """Whether somebody waits for what is final, or nothing else is going on."""
        with self._lock:
            if self._running == 0 and self._outbox.is_all_final:
                return True
            return any(self._pending[name].final is not None for name in self._outbox.final)

    def _close(self, now_ns: int) -> Closing:
        """Close some of the bins that can be closed."""
        with self._lock:
            offset_ns = self._clock.wall_ns() - self._clock.monotonic_ns()
            closing = self._ledger.advance(now_ns, wall_offset_ns=offset_ns, most=BINS_A_TURN)
            self._outbox.close(closing)
            self._keeper.close(closing.bins)
            self.idle_watts = self._ledger.idle_watts
        self._closed_ns = 0 if closing.more else now_ns
        self._metrics.ledger.add(closing.minutes)
        return closing

    def _write(self, now_ns: int, *, everything: bool) -> None:
        """Hand over what the outbox holds, and what is kept to divide it anew.

        Whoever asks for a record finds it in the outbox until it has been made.
        """
        self._spool_begun()  # of those that `preview` took in meanwhile
        with self._lock:
            provisional = self._ledger.posted(self._outbox.changed(now_ns))
        records = self._delivery.records(provisional, self._outbox.final)
        minute = self._clock.wall_ns() // NS_PER_MINUTE
        with self._lock:
            minutes = self._outbox.take(provisional.keys(), now_ns)
            kept = self._keeper.take(minute, everything=everything)
        self._delivery.write(records, minutes=minutes, kept=kept)

    def _spool_begun(self) -> None:
        with self._lock:
            new, self._begun = self._begun, []
        self._delivery.begin(new)

    def _take_in(self) -> None:
        """Empty the inbox."""
        while True:
            try:
                self._inbox.get_nowait()()
            except Empty:
                return
            except Exception:
                log.exception("a_fact_was_lost")

    def _on_begin(self, timeline: RequestTimeline, charge: Charge) -> None:
        self._running += 1
        if not timeline.load_only:
            self._begun.append(timeline)
        self._ledger.begin(timeline.id, charge.domains, timeline.sent_ns)
        self._keeper.begin(timeline.id, charge.domains, timeline.sent_ns)

    def _on_end(self, timeline: RequestTimeline) -> None:
        pending = self._pending[timeline.id]
        pending.conditions = self._conditions
        self._running -= 1
        self._outbox.end(timeline.id, timeline.end_ns or self._clock.monotonic_ns())
        span = None
        try:
            self._backends.identify(timeline)
            pending.doubts = self._backends.doubts(timeline.backend, timeline.model, pending.charge)
            span = service_of(timeline)
        finally:
            # Whatever fails above, nobody may stay in service for ever.
            self._ledger.end(timeline.id, span)
            self._keeper.end(timeline.id, span)
        if not timeline.load_only:
            self._metrics.requests.ended(timeline)

    def _on_sample(self, sample: Sample) -> None:
        for bin_ in sample.bins:
            self._ledger.add(bin_)
        if sample.conditions:
            # A new one each time: requests that ended keep the one of then.
            told = {conditions.domain: conditions for conditions in sample.conditions}
            self._conditions = self._conditions | told
        self._metrics.sampler_beat(sample.late_ns, sample.missed)

    def _on_usage(self, usage: Usage) -> None:
        self._ledger.use(usage)
        self._keeper.use(usage)

    def _on_steps(self, told: EngineSteps) -> None:
        self._ledger.step(told)
        self._keeper.step(told)
