"""The requests that are not final in the database yet, and those who wait for them."""

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from collectors.base import Conditions
from melodi.daemon.backends import Charge
from melodi.energy.record import EnergyRecord
from melodi.inference.timeline import RequestTimeline

UNSTORED_KEPT = 1_000


@dataclass(slots=True)
class Pending:
    """A request that is not final in the database yet."""

    timeline: RequestTimeline
    charge: Charge
    """What it is charged to, as it was known when it began."""
    final: Future[EnergyRecord] | None = None
    """For those who wait for it, if anybody does."""
    conditions: dict[str, Conditions] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    """Reasons that its energy cannot tell of itself."""
    composed: EnergyRecord | None = None
    """Its final record, on its way into the database."""


class PendingRequests:
    """All of them by id; safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[str, Pending] = {}
        self._unstored: dict[str, EnergyRecord] = {}
        self._waiting = threading.Lock()
        self._awaited = 0

    def __bool__(self) -> bool:
        return bool(self._known)

    def __getitem__(self, request_id: str) -> Pending:
        return self._known[request_id]

    @property
    def in_flight(self) -> int:
        """Those that have begun and not ended."""
        return sum(one.timeline.end_ns is None for one in list(self._known.values()))

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits, or waited in vain, for one of them."""
        return self._awaited > 0

    def add(self, pending: Pending) -> None:
        self._known[pending.timeline.id] = pending

    def get(self, request_id: str) -> Pending | None:
        return self._known.get(request_id)

    def forget(self, request_id: str) -> None:
        """It will have no record."""
        with self._waiting:
            self._awaited -= self._known.pop(request_id).final is not None

    def unstored(self, request_id: str) -> EnergyRecord | None:
        """The final record of one that could not be stored, remembered for a time."""
        return self._unstored.get(request_id)

    async def wait_final(self, request_id: str, seconds: float) -> EnergyRecord | None:
        """The final, stored record; None if it is unknown here or `seconds` were not enough."""
        with self._waiting:
            pending = self._known.get(request_id)
            if pending is None:
                return None
            if pending.final is None:
                pending.final = Future()
                self._awaited += 1
        waiting = asyncio.shield(asyncio.wrap_future(pending.final))
        try:
            return await asyncio.wait_for(waiting, seconds)
        except TimeoutError:
            return None

    def settle(self, record: EnergyRecord, seq: int | None) -> None:
        """Tell those who wait of a final record; it could not be stored where it has no `seq`."""
        if seq is None:
            record = replace(record, quality_reasons=(*record.quality_reasons, "not_stored"))
            self._unstored[record.id] = record
            while len(self._unstored) > UNSTORED_KEPT:
                del self._unstored[next(iter(self._unstored))]
        with self._waiting:
            waiting = self._known.pop(record.id).final
            self._awaited -= waiting is not None
        if waiting is not None:
            waiting.set_result(replace(record, seq=seq))
