"""One thread that writes what many hand it, many batches to a transaction."""

import threading
import uuid
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from itertools import count, islice
from typing import NamedTuple, Protocol

import sqlalchemy as sa
import structlog

from melodi.errors import StoreError
from melodi.store.dialect import database_failed
from melodi.store.records import Batch, Mark

_BATCHES_PER_TRANSACTION = 256
_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Applies(Protocol):
    """What the writer writes to: a RecordStore."""

    def apply(self, batches: list[Batch], /) -> dict[str, int]: ...


class _Waiting(NamedTuple):
    batch: Batch
    written: Future[dict[str, int]]


class RecordWriter:
    """Takes batches without waiting, and writes them in order.

    While the database fails the batches stay and are tried again, marked so that one whose commit
    went through although its answer was lost is not written twice. A batch that cannot be written
    as it is is written in parts, its minutes and each of its records alone, so that only what is
    bad is lost, and named in the log.
    """

    def __init__(self, store: Applies, *, bound: int = 10_000) -> None:
        self._store = store
        self._bound = bound
        self._name = str(uuid.uuid4())
        self._numbers = count(1)
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._give_up = threading.Event()
        self._alone = 0
        self._failures = 0
        self._fault: str | None = None
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="melodi-writer", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """Why the database cannot be written now; None: it can, as far as is known."""
        return self._fault

    @property
    def pending(self) -> int:
        """Batches taken and not yet written."""
        return len(self._queue)

    @property
    def lost(self) -> int:
        """Batches refused, parts rejected by the database, and what was left at closing."""
        return self._lost

    def submit(self, batch: Batch) -> Future[dict[str, int]]:
        """Take `batch`; the future gives the seqs of its final records once they are stored.

        A final record that can never be stored has no seq there; where nothing of the batch can
        be stored the future fails with the reason. It fails with StoreError where the writer is
        full or closed. Never waits.
        """
        written: Future[dict[str, int]] = Future()
        # Whoever waits for it may stop waiting; the batch is written all the same.
        written.set_running_or_notify_cancel()
        with self._changed:
            refusal = self._refusal()
            if refusal is None:
                marked = replace(batch, mark=Mark(self._name, next(self._numbers)))
                self._queue.append(_Waiting(marked, written))
                self._changed.notify()
            else:
                self._lost += 1
        if refusal is not None:
            written.set_exception(StoreError(refusal))
        return written

    def close(self, timeout: float) -> None:
        """Write what is waiting, for at most `timeout` seconds; the rest is lost and said."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        self._give_up.set()
        if self._thread.is_alive():
            # One transaction may still be at work; it decides about its own batches.
            self._thread.join(_LONGEST_DELAY_SECONDS)

    def _refusal(self) -> str | None:
        if self._closing:
            return "the store is closed; start the daemon again"
        if len(self._queue) >= self._bound:
            return f"{self._bound} batches wait to be written; see to the database: {self._fault}"
        return None

    def _run(self) -> None:
        while group := self._next_group():
            try:
                batches = [waiting.batch for waiting in group]
                seqs = self._store.apply(batches)
            except Exception as error:  # noqa: BLE001 - the thread must outlive any batch
                self._failed(group, error)
            else:
                self._succeeded(group, seqs)
            if self._fault is not None and self._give_up.wait(self._delay_seconds()):
                break
        self._abandon()

    def _next_group(self) -> list[_Waiting]:
        """The oldest batches, left in the queue; none once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            size = 1 if self._alone else _BATCHES_PER_TRANSACTION
            return list(islice(self._queue, size))

    def _succeeded(self, group: list[_Waiting], seqs: dict[str, int]) -> None:
        self._take(group)
        self._recovered()
        for batch, written in group:
            ids = (record.id for record in batch.records)
            written.set_result({id_: seqs[id_] for id_ in ids if id_ in seqs})

    def _failed(self, group: list[_Waiting], error: Exception) -> None:
        if database_failed(error):
            self._failures += 1
            self._fault = str(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
            if self._failures == 1:
                _log.warning("store_failing", reason=self._fault, pending=self.pending)
            return
        self._recovered()
        if len(group) > 1:
            self._alone = len(group)
        elif len(parts := _parts(group[0].batch)) > 1:
            self._split(group[0], parts)
        else:
            self._take(group)
            self._reject(group[0], error)

    def _split(self, whole: _Waiting, parts: list[Batch]) -> None:
        """Put a batch's parts in its place; the bad one among them will end alone."""
        waiting = [_Waiting(part, Future()) for part in parts]
        # They end in order, so with the last one all have ended.
        waiting[-1].written.add_done_callback(lambda _: _join(waiting, whole.written))
        with self._changed:
            self._queue.popleft()
            self._queue.extendleft(reversed(waiting))

    def _recovered(self) -> None:
        if self._fault is not None:
            _log.info("store_recovered", failures=self._failures)
        self._fault, self._failures = None, 0

    def _take(self, group: list[_Waiting]) -> None:
        with self._changed:
            for _ in group:
                self._queue.popleft()
            self._alone = max(0, self._alone - len(group))

    def _reject(self, waiting: _Waiting, error: Exception) -> None:
        with self._changed:
            self._lost += 1
        ids = [record.id for record in waiting.batch.records]
        _log.error("batch_rejected", ids=ids, minutes=len(waiting.batch.minutes), error=repr(error))
        waiting.written.set_exception(error)

    def _delay_seconds(self) -> float:
        return min(_FIRST_DELAY_SECONDS * 2.0 ** min(self._failures, 10), _LONGEST_DELAY_SECONDS)

    def _abandon(self) -> None:
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
            self._lost += len(left)
        if left:
            _log.error("batches_lost", count=len(left), reason=self._fault)
        for waiting in left:
            waiting.written.set_exception(
                StoreError(f"closed before it was written; see to the database: {self._fault}")
            )


def _parts(batch: Batch) -> list[Batch]:
    """The minutes and what is kept of them, then each record alone.

    Adding minutes twice would count them twice, so they keep the mark; a record is replaced.
    """
    minutes = [replace(batch, records=())] if batch.minutes or batch.kept else []
    return minutes + [Batch(host=batch.host, records=(record,)) for record in batch.records]


def _join(parts: list[_Waiting], whole: Future[dict[str, int]]) -> None:
    """End the future of a batch as its parts have ended."""
    errors = [part.written.exception() for part in parts]
    if all(errors):
        whole.set_exception(errors[0])
        return
    stored = (part.written.result() for part, error in zip(parts, errors, strict=True) if not error)
    whole.set_result({id_: seq for seqs in stored for id_, seq in seqs.items()})
