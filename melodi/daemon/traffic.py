"""Passes traffic on in processes of its own, each of which takes clients as they come."""

import asyncio
from collections.abc import Sequence

from melodi.clock import Clock
from melodi.daemon.lane import Lane
from melodi.daemon.telling import Telling
from melodi.daemon.traffic_process import Front
from melodi.gateway.apart import Used
from melodi.inference.timeline import Recorder


class Traffic:
    """The lanes that share the listening sockets, which stay the caller's."""

    def __init__(
        self, recorder: Recorder, telling: Telling, clock: Clock, *, processes: int
    ) -> None:
        self._lanes = [Lane(recorder, telling, clock) for _ in range(processes)]

    @property
    def faults(self) -> list[str]:
        """What is wrong at present, each fault once; empty: nothing."""
        return list(dict.fromkeys(one.fault for one in self._lanes if one.fault is not None))

    @property
    def used(self) -> Used:
        """By all processes that pass or passed traffic on, as they last said."""
        return sum((one.used for one in self._lanes), Used())

    async def start(self, fronts: Sequence[Front]) -> None:
        """Begin to pass traffic on; raises BackendError where that cannot be."""
        starting = (one.start(fronts) for one in self._lanes)
        failed = [one for one in await asyncio.gather(*starting, return_exceptions=True) if one]
        if failed:
            raise failed[0]

    def ask_to_stop(self) -> None:
        """Let them take no new work, and their streams end in their grace time."""
        for one in self._lanes:
            one.ask_to_stop()

    async def close(self) -> None:
        """Wait for their end; all that they have seen is taken in."""
        await asyncio.gather(*(one.close() for one in self._lanes))
