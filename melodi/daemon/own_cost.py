"""What MELODI itself uses of the host that it measures."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

import psutil

from collectors.base import Kind
from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import UJ_PER_JOULE
from melodi.energy.edges import Edge
from melodi.sampling.sampler import Sampling

SHORTEST_SECONDS = 1.0
"""The kernel counts busy time in ticks of 10 ms, so shorter stretches tell little."""


class OwnCost:
    """The CPU time of this process and of those that work for it, and joules by it.

    An estimate: of what a processor or memory domain used above its idle power, the part that
    MELODI had of all busy CPU time (MEASUREMENT: 4, the share of a backend). What it adds to idle
    power itself is learned as idle, and is not in here.
    """

    def __init__(
        self,
        sampler: Sampling,
        others: Iterable[Callable[[], float]],
        idle_watts: Callable[[], Mapping[str, float]],
    ) -> None:
        self._sampler = sampler
        self._others = tuple(others)
        self._idle_watts = idle_watts
        self._lock = threading.Lock()
        self._own_seconds = self.cpu_seconds()
        self._busy_seconds = _busy_seconds()
        self._edges: dict[str, Edge] = {}
        self._joules: dict[str, float] = {}

    def cpu_seconds(self) -> float:
        """CPU time used so far, in seconds."""
        return time.process_time() + sum(seconds() for seconds in self._others)

    def joules(self) -> dict[str, float]:
        """Joules used so far, by domain; those whose idle power is not known are not in it."""
        with self._lock:
            busy_seconds = _busy_seconds()
            if busy_seconds - self._busy_seconds >= SHORTEST_SECONDS:
                own_seconds = self.cpu_seconds()
                own = own_seconds - self._own_seconds
                self._charge(min(1.0, own / (busy_seconds - self._busy_seconds)))
                self._own_seconds, self._busy_seconds = own_seconds, busy_seconds
            return dict(self._joules)

    def _charge(self, share: float) -> None:
        idle = self._idle_watts()
        for name, curve in list(self._sampler.curves.items()):
            if curve.domain.kind not in (Kind.CPU, Kind.DRAM) or (now := curve.edges.last) is None:
                continue
            last = self._edges.get(name)
            self._edges[name] = now
            if last is None or name not in idle:
                continue
            measured_ns = now.at_ns - last.at_ns - (now.unmeasured_ns - last.unmeasured_ns)
            gained = (now.total_uj - last.total_uj) / UJ_PER_JOULE
            dynamic = max(0.0, gained - idle[name] * measured_ns / NS_PER_SECOND)
            self._joules[name] = self._joules.get(name, 0.0) + share * dynamic


def _busy_seconds() -> float:
    """CPU time of all processors spent on anything but idling, since boot."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - _guests(times))


def _guests(times: object) -> float:
    """On Linux `user` and `nice` hold the time of guests already."""
    return float(getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0))
