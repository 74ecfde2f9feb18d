"""Keeps one process that passes traffic on, and takes in what that process sees."""

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from melodi.child import Restarts
from melodi.clock import Clock
from melodi.daemon.telling import Telling
from melodi.daemon.traffic_process import Front, TrafficProcess
from melodi.errors import BackendError
from melodi.gateway.apart import Asked, Passed, Task, Told, Used
from melodi.inference.backends.base import Ending, Progress
from melodi.inference.recording import GuardedRecorder
from melodi.inference.timeline import Recorder, RequestTimeline

FIRST_WAIT_SECONDS = 0.1
MARGIN_SECONDS = 0.5
"""For the way to the other process and back."""

log = structlog.get_logger(__name__)


class Lane:
    """Keeps a process in front of the backends, and starts it anew when it ends.

    Belongs to an event loop. The listening sockets stay the caller's: other lanes may take from
    them, and clients that come while there is no process at all wait for the next one.
    """

    def __init__(self, recorder: Recorder, telling: Telling, clock: Clock) -> None:
        self._recorder = GuardedRecorder(recorder)
        self._telling = telling
        self._clock = clock
        self._open: dict[str, RequestTimeline] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._process: TrafficProcess | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._fault: str | None = None
        self._used = self._used_before = Used()

    @property
    def fault(self) -> str | None:
        """What is wrong with it at present; None: nothing."""
        return self._fault

    @property
    def used(self) -> Used:
        """By its processes one after the other, as they last said."""
        return self._used_before + self._used

    async def start(self, fronts: Sequence[Front]) -> None:
        """Begin to pass traffic on; raises BackendError where that cannot be."""
        process = await self._begun(fronts)
        if not await process.is_ready():
            exit_code = await process.ended()
            raise BackendError(
                f"a process that passes traffic on has ended at once (exit code {exit_code}): "
                "see what it said above"
            )
        self._keeping = asyncio.create_task(self._keep(process, fronts))

    def ask_to_stop(self) -> None:
        """Let it take no new work, and its streams end in their grace time."""
        self._stopping.set()
        if self._process is not None:
            self._process.ask_to_stop()

    async def close(self) -> None:
        """Wait for its end; all that it has seen is taken in."""
        self.ask_to_stop()
        if self._keeping is not None:
            await self._keeping
        for one in self._answering:
            one.cancel()

    async def _begun(self, fronts: Sequence[Front]) -> TrafficProcess:
        patience = self._telling.patience_seconds + MARGIN_SECONDS
        task = Task(tuple((one.backend, one.fd) for one in fronts), patience)
        self._process = await TrafficProcess.begun(task, self._hear)
        if self._stopping.is_set():
            # Whoever asked meanwhile could ask the last one only.
            self._process.ask_to_stop()
        return self._process

    async def _keep(self, process: TrafficProcess, fronts: Sequence[Front]) -> None:
        restarts = Restarts(self._clock, first_seconds=FIRST_WAIT_SECONDS)
        while True:
            exit_code = await process.ended()
            self._cut_what_is_open()
            if self._stopping.is_set():
                return
            wait_seconds = restarts.wait_seconds()
            self._fault = (
                f"a process that passes traffic on has ended (exit code {exit_code}), and its "
                f"requests with it; it is started again in {wait_seconds:g} s; see the log"
            )
            log.warning("traffic_ended", exit_code=exit_code, again_in_seconds=wait_seconds)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_seconds)
                return
            restarts.begun()
            self._used_before, self._used = self.used, Used()
            process = await self._begun_again(process, fronts)

    async def _begun_again(self, last: TrafficProcess, fronts: Sequence[Front]) -> TrafficProcess:
        """The next process; the last one, which has ended, where none can be started."""
        try:
            process = await self._begun(fronts)
        except OSError as error:
            log.warning("traffic_not_started", reason=str(error))
            return last
        if await process.is_ready():
            self._fault = None
        return process

    def _cut_what_is_open(self) -> None:
        """What the process had begun to pass on has ended with it."""
        for timeline in self._open.values():
            # Whether the backend was reached cannot be told any more: it may have worked.
            timeline.reached = True
            progress = Progress(timeline)
            progress.fail("MELODI's process that passed the answer on has ended")
            progress.close(self._clock.monotonic_ns(), Ending.CUT)
            self._recorder.end(timeline)
        self._open.clear()

    def _hear(self, message: Passed | Asked) -> None:
        if isinstance(message, Asked):
            answering = asyncio.create_task(self._answer(message))
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)
            return
        self._used = message.used
        for has_ended, timeline in message.seen:
            if has_ended:
                self._open.pop(timeline.id, None)
                self._recorder.end(timeline)
            else:
                self._open[timeline.id] = timeline
                self._recorder.begin(timeline)

    async def _answer(self, asked: Asked) -> None:
        record = None
        try:
            record = await self._telling.energy(asked.request_id)
        except Exception:
            log.exception("a_client_is_not_told_its_energy", request=asked.request_id)
        if self._process is not None:
            self._process.send(Told(asked.number, record))
