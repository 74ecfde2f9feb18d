"""Reads the step counters of vLLM servers while requests are in service that do not show them."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import structlog

from melodi.clock import Clock
from melodi.energy.engine import EngineSteps
from melodi.inference.describe import session_with
from melodi.inference.engine_counters import MisleadingCounters, read_counters
from melodi.inference.engine_meter import EngineMeter
from melodi.inference.request import Backend, BackendKind
from melodi.inference.timeline import Recorder, RequestTimeline

if TYPE_CHECKING:
    import aiohttp

PERIOD_SECONDS = 1.0
SOON_SECONDS = 0.25
"""Until the next reading where one was answered too slowly to be of use."""
RETRY_SECONDS = 5.0
SELDOM_SECONDS = 60.0
"""Until a server is asked again whose counters are of no use as it runs."""

log = structlog.get_logger(__name__)


class EngineWatch:
    """A recorder that passes timelines on to the books, and knows from them when to read.

    No request waits for a reading. `run` belongs to one event loop; begin and end may be called
    from any thread.
    """

    def __init__(
        self,
        books: Recorder,
        backends: Iterable[Backend],
        *,
        clock: Clock,
        on_steps: Callable[[EngineSteps], None],
    ) -> None:
        self._books = books
        self._clock = clock
        self._on_steps = on_steps
        kinds = [one for one in backends if one.kind is BackendKind.VLLM]
        self._engines = {one.name: _Engine(one) for one in kinds}
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, timeline: RequestTimeline) -> None:
        self._books.begin(timeline)
        engine = self._engines.get(timeline.backend)
        if engine is None:
            return
        with engine.lock:
            engine.meter.begin(timeline.id, timeline.sent_ns, streamed=timeline.streamed is True)
        if engine.meter.is_owed and not engine.wanted.is_set() and self._loop is not None:
            self._loop.call_soon_threadsafe(engine.wanted.set)

    def end(self, timeline: RequestTimeline) -> None:
        self._books.end(timeline)
        engine = self._engines.get(timeline.backend)
        if engine is not None:
            with engine.lock:
                engine.meter.end(timeline.id, timeline.end_ns or self._clock.monotonic_ns())

    async def run(self) -> None:
        """Read whenever there is something to tell of, until cancelled."""
        self._loop = asyncio.get_running_loop()
        await asyncio.gather(*(self._follow(one) for one in self._engines.values()))

    async def _follow(self, engine: "_Engine") -> None:
        while True:
            await engine.wanted.wait()
            engine.wanted.clear()
            try:
                async with session_with(engine.backend) as session:
                    while engine.meter.is_owed:
                        pause = await self._read(engine, session)
                        await asyncio.sleep(pause)
            except Exception as error:  # noqa: BLE001  the next request asks for it again
                self._say(engine, repr(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, engine: "_Engine", session: "aiohttp.ClientSession") -> float:
        """Read once, and tell; gives the seconds until the next reading."""
        fault = counters = None
        pause_seconds = PERIOD_SECONDS
        try:
            counters = await read_counters(session, engine.backend, self._clock)
        except Exception as error:  # noqa: BLE001  whatever it is, requests go on without
            fault = str(error) or type(error).__name__
            misleading = isinstance(error, MisleadingCounters)
            pause_seconds = SELDOM_SECONDS if misleading else RETRY_SECONDS
        with engine.lock:
            told = (
                engine.meter.miss(self._clock.monotonic_ns())
                if counters is None
                else engine.meter.feed(counters)
            )
        for steps in told:
            self._on_steps(steps)
        self._say(engine, fault)
        return pause_seconds if told or fault is not None else SOON_SECONDS

    def _say(self, engine: "_Engine", fault: str | None) -> None:
        """Log that the counters went, or came back; not what is known already."""
        if (fault is None) != (engine.fault is None):
            name = engine.backend.name
            if fault is not None:
                log.warning("engine_steps_unknown", backend=name, reason=fault)
            else:
                log.info("engine_steps_known_again", backend=name)
        engine.fault = fault


class _Engine:
    """A backend, its meter, and whether somebody waits for a reading."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.meter = EngineMeter(backend.name)
        self.lock = threading.Lock()
        self.wanted = asyncio.Event()
        self.fault: str | None = None
