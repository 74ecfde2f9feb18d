"""The recorder and the books as a process sees them that passes traffic on for a daemon."""

import asyncio
import logging
import time
from itertools import count

from melodi.energy.record import EnergyRecord
from melodi.gateway.apart import Asked, Passed, Told, Used
from melodi.inference.timeline import RequestTimeline
from melodi.line import Line
from melodi.logs import lines_lost

logger = logging.getLogger(__name__)

TOGETHER_SECONDS = 0.01
"""Timelines wait so long for others: each message wakes the daemon."""
UNSENT_BYTES = 64 * 1024 * 1024
"""Of a daemon that takes nothing, beyond which requests pass unrecorded."""


class FarBooks:
    """Hands timelines over to the daemon, a few at a time; belongs to the loop of `line`."""

    def __init__(self, line: Line, *, patience_seconds: float) -> None:
        self._line = line
        self._patience_seconds = patience_seconds
        self._seen: list[tuple[bool, RequestTimeline]] = []
        self._begun: set[str] = set()
        self._unrecorded = 0
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[EnergyRecord | None]] = {}

    def begin(self, timeline: RequestTimeline) -> None:
        """A request is sent; nothing is said of it where the daemon has stopped listening."""
        if self._line.unsent_bytes > UNSENT_BYTES:
            if not self._unrecorded:
                logger.error("the daemon takes no more requests in: they pass unrecorded")
            self._unrecorded += 1
            return
        if self._unrecorded:
            logger.error("%d requests passed unrecorded", self._unrecorded)
            self._unrecorded = 0
        self._begun.add(timeline.id)
        self._say(False, timeline)

    def end(self, timeline: RequestTimeline) -> None:
        """The request is over and its timeline complete."""
        if timeline.id in self._begun:
            self._begun.remove(timeline.id)
            self._say(True, timeline)

    async def energy(self, request_id: str) -> EnergyRecord | None:
        """What the daemon says that the request cost; None where it says nothing in time."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self.hand_over()
            self._line.send(Asked(number, request_id))
            return await asyncio.wait_for(answer, self._patience_seconds)
        except TimeoutError:
            return None
        finally:
            del self._asked[number]

    def told(self, answer: Told) -> None:
        """The daemon has answered."""
        waiting = self._asked.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer.record)

    def hand_over(self) -> None:
        """Say now what has been seen."""
        if self._seen:
            seen, self._seen = self._seen, []
            self._line.send(Passed(seen, Used(time.process_time(), lines_lost())))

    def _say(self, ended: bool, timeline: RequestTimeline) -> None:
        if not self._seen:
            asyncio.get_running_loop().call_later(TOGETHER_SECONDS, self.hand_over)
        self._seen.append((ended, timeline))
