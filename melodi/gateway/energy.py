"""Tells a client that asked for it, in the answer itself, what the answer cost."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import orjson

from melodi.clock import Clock
from melodi.energy.record import EnergyRecord, Quality
from melodi.gateway.headers import REQUEST_ID, Headers, first
from melodi.gateway.inbound import Send
from melodi.gateway.splice import EventSplice, LineSplice, Splice, WholeSplice
from melodi.gateway.usage import UsageFilter
from melodi.gateway.watch import Unwatched, Watch
from melodi.inference.backends.base import Ending

logger = logging.getLogger(__name__)

ASKS = b"x-melodi-energy"
WAIT = "wait"
JOULES = b"x-energy-joules"
METHOD = b"x-energy-method"
JOULES_PER_KWH = 3.6e6


class Books(Protocol):
    """Who knows what requests cost."""

    async def energy(self, request_id: str) -> EnergyRecord | None:
        """The record of a request that has ended, final where it is so in the settle time, else as
        it stands; None where it is not known in time."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer, as its client would have it."""

    status: int
    headers: Headers


class Teller:
    """Asks the books on behalf of one gateway's clients."""

    def __init__(self, books: Books, clock: Clock) -> None:
        self._books = books
        self._clock = clock

    async def relay(
        self,
        head: Head,
        chunks: AsyncIterator[bytes],
        splice: Splice,
        *,
        watch: Watch | Unwatched,
        usage: UsageFilter | None,
        send: Send,
    ) -> None:
        """Send an answer on with its energy, at most the settle time after it ended."""
        out = _Out(head, send)
        if not isinstance(splice, WholeSplice):
            await out.begin()
        told = False
        try:
            async for chunk in chunks:
                at_ns = self._clock.monotonic_ns()
                passing = chunk if usage is None else usage.feed(chunk)
                await out.body(passing if told else splice.feed(passing))
                watch.feed(chunk, at_ns)
                if splice.due and not told:
                    told = True
                    await self._tell(out, splice, watch, Ending.CLEAN)
        except Exception:
            if not told:
                await self._tell(out, splice, watch, Ending.CUT)
            raise
        rest = b"" if usage is None else usage.finish()
        await out.body(rest if told else splice.feed(rest))
        if not told:
            await self._tell(out, splice, watch, Ending.CLEAN)
        await out.end()

    async def _tell(
        self, out: "_Out", splice: Splice, watch: Watch | Unwatched, ending: Ending
    ) -> None:
        """End the record, wait for what it cost, and send what was held."""
        watch.end(self._clock.monotonic_ns(), ending)
        cut = ending is Ending.CUT
        if cut and out.begun:
            await out.body(splice.finish(None))
            return
        record = await self._record(first(watch.headers, REQUEST_ID) or "")
        rest = splice.finish(None if cut else orjson.dumps(said(record)))
        if not out.begun:
            await out.begin(said_in_headers(record), length=None if cut else len(rest))
        await out.body(rest)

    async def _record(self, request_id: str) -> EnergyRecord | None:
        """The record, final or as it stands; None where the books cannot tell."""
        try:
            return await self._books.energy(request_id)
        except Exception:
            logger.exception("the client of request %s is not told its energy", request_id)
            return None


@dataclass(frozen=True, slots=True)
class Wish:
    """One client's wish to be told the energy."""

    teller: Teller
    streamed: bool | None
    """Whether it asked for a stream; None: unknown."""

    def splice(self, head: Head) -> Splice | None:
        """How the energy goes into the answer with this head; None: it passes as it is.

        So do errors, compressed streams, and JSON where a stream was asked for: that may be one
        under another name.
        """
        kind = (first(head.headers, b"content-type") or "").partition(";")[0].strip().lower()
        encoding = first(head.headers, b"content-encoding") or "identity"
        readable = encoding.strip().lower() == "identity"
        if not 200 <= head.status < 300:
            return None
        if kind == "application/json" and self.streamed is False:
            return WholeSplice(readable=readable)
        if kind == "text/event-stream" and readable:
            return EventSplice()
        return LineSplice() if kind == "application/x-ndjson" and readable else None


class _Out:
    """The client's side of one answer."""

    def __init__(self, head: Head, send: Send) -> None:
        self._head = head
        self._send = send
        self.begun = False

    async def begin(self, more: Headers | None = None, *, length: int | None = None) -> None:
        """Send the head; `length` replaces the length that it tells, if it tells one."""
        self.begun = True
        told = [(b"content-length", b"%d" % length)] if length is not None else []
        headers = [
            told[0] if told and name == b"content-length" else (name, value)
            for name, value in self._head.headers
        ]
        start = {"status": self._head.status, "headers": headers + (more or [])}
        await self._send({"type": "http.response.start", **start})

    async def body(self, data: bytes) -> None:
        """Send a part of the body, the head first where that has not been sent."""
        if data:
            if not self.begun:
                await self.begin()
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


def said(record: EnergyRecord | None) -> dict[str, object]:
    """The object that an answer gains; joules include the share of the idle device."""
    joules = None if record is None else record.energy_joules
    seconds = None if record is None else record.duration_seconds
    return {
        "energy_joules": joules,
        "energy_kwh": None if joules is None else joules / JOULES_PER_KWH,
        "avg_power_watts": joules / seconds if joules is not None and seconds else None,
        "duration_seconds": seconds,
        "gpu_joules": record and record.gpu_joules,
        "cpu_joules": record and record.cpu_joules,
        "low_joules": record and record.low_joules,
        "high_joules": record and record.high_joules,
        "quality": record.quality if record else Quality.NONE,
        "method": _method(record),
        "provisional": record is None or record.provisional,
    }


def said_in_headers(record: EnergyRecord | None) -> Headers:
    """The same in short; nothing where it is not known."""
    if record is None or record.energy_joules is None:
        return []
    method = _method(record)
    named = [(METHOD, method.encode())] if method is not None else []
    return [(JOULES, orjson.dumps(record.energy_joules)), *named]


def _method(record: EnergyRecord | None) -> str | None:
    """By which policy joules are shared among requests at the same time; an estimate says so."""
    if record is None or record.energy_joules is None or record.policy is None:
        return None
    estimated = record.quality is Quality.ESTIMATED
    return f"{record.policy}, estimated" if estimated else record.policy
