"""The core in real time: answers come out token by token as the simulated steps end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from melodi.clock import NS_PER_SECOND, Clock
from melodi.simulator.core import Core
from melodi.simulator.faults import Fault
from melodi.simulator.jobs import Event, EventKind, Submission, Truth


class Engine:
    """Hands the core's events to those who wait for them; belongs to one event loop.

    Lag of the loop delays what clients see and changes nothing in the core.
    """

    def __init__(self, core: Core, clock: Clock):
        self.core = core
        self._clock = clock
        self._waiting: dict[int, asyncio.Queue[Event]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def submit(
        self, submission: Submission, *, pieces: Sequence[str] = (), fault: Fault | None = None
    ) -> "Generation":
        """Put a request into the core; leaving the generation before its end cancels it."""
        request = self.core.submit(submission, self._clock.monotonic_ns())
        events = self._waiting[request] = asyncio.Queue()
        self._turn()
        return Generation(self, request, events, pieces=pieces, fault=fault)

    def leave(self, request: int) -> None:
        """Nobody waits for `request` any more."""
        self._waiting.pop(request, None)
        self.core.cancel(request, self._clock.monotonic_ns())
        self._turn()

    def _turn(self) -> None:
        """Deliver what has happened, and come back when something will."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ns = self._clock.monotonic_ns()
        self.core.advance(now_ns)
        for event in self.core.drain():
            if event.request in self._waiting:
                self._waiting[event.request].put_nowait(event)
        next_ns = self.core.next_event_ns()
        if next_ns is not None:
            delay = max(0, next_ns - now_ns) / NS_PER_SECOND
            self._timer = asyncio.get_running_loop().call_later(delay, self._turn)


class Generation:
    """One request in the engine; a context manager that cancels what has not ended."""

    def __init__(
        self,
        engine: Engine,
        request: int,
        events: asyncio.Queue[Event],
        *,
        pieces: Sequence[str],
        fault: Fault | None,
    ):
        self.id = request
        self._engine = engine
        self._events = events
        self._pieces = pieces
        self._fault = fault

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.leave(self.id)

    async def tokens(self) -> AsyncIterator[str]:
        """The text of each output token as it comes; the end is when the core is through.

        Raises ConnectionCut or EngineFailed where a fault strikes.
        """
        emitted = 0
        while True:
            event = await self._events.get()
            if event.kind is EventKind.STARTED:
                continue
            if self._fault is not None:
                self._fault.strike(emitted)
            if event.kind is EventKind.FINISHED:
                return
            yield self._pieces[emitted]
            emitted = event.tokens

    async def finish(self) -> str:
        """Wait for the end; gives the whole text."""
        return "".join([piece async for piece in self.tokens()])

    @property
    def truth(self) -> Truth:
        """What is true of the request so far."""
        return self._engine.core.truth(self.id)
