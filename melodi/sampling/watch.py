"""Looks again and again for meters that were not there before, so that none needs a restart."""

import threading
from collections.abc import Callable, Sequence

import structlog

from collectors.overlap import opened
from collectors.registry import Probe
from melodi.clock import Clock
from melodi.sampling.plan import Plan

FIRST_WAIT_SECONDS = 2.0
LAST_WAIT_SECONDS = 60.0
STOP_SECONDS = 5

log = structlog.get_logger(__name__)


class MeterWatch:
    """Looks in a thread of its own, because a driver may take its time to answer.

    `on_change` is called in that thread with all probes, and takes over the collectors in them.
    The waits double while nothing new is found.
    """

    def __init__(
        self,
        plan: Plan,
        probes: Sequence[Probe],
        *,
        clock: Clock,
        on_change: Callable[[list[Probe]], object],
    ) -> None:
        self._plan = plan
        self._probes = list(probes)
        self._clock = clock
        self._on_change = on_change
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="melodi-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the looking; may block for as long as a driver does, at most STOP_SECONDS."""
        self._stopping.set()
        self._thread.join(timeout=STOP_SECONDS)

    def look(self) -> bool:
        """Look once; gives whether anything has changed."""
        before = self._probes
        found = self._plan.probe_again(before, self._clock.monotonic_ns)
        if self._stopping.is_set():
            _close_new(found, before)
            return False
        self._probes = found
        if _gist(found) == _gist(before):
            return False
        for name in {one.name for one in found if one.domains} - {
            one.name for one in before if one.domains
        }:
            log.info("meter_found", collector=name)
        self._on_change(found)
        return True

    def _run(self) -> None:
        wait_seconds = FIRST_WAIT_SECONDS
        while not self._stopping.wait(wait_seconds):
            wait_seconds = min(2 * wait_seconds, LAST_WAIT_SECONDS)
            try:
                if self.look():
                    wait_seconds = FIRST_WAIT_SECONDS
            except Exception:
                log.exception("meters_not_looked_for")


def _gist(probes: Sequence[Probe]) -> list[object]:
    """What makes a difference to who measures, or asks why something is not measured."""
    return [
        (one.name, one.state, one.reason, [(two.name, two.summable) for two in one.domains])
        for one in probes
    ]


def _close_new(found: Sequence[Probe], before: Sequence[Probe]) -> None:
    held = [opened(one.collector) for one in before if one.collector]
    for one in found:
        if one.collector and not any(opened(one.collector) is old for old in held):
            one.collector.close()
