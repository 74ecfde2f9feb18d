"""A reader's thread tells of what it read in good time, and of all of it."""

import threading
from collections.abc import Sequence

import pytest

from collectors.base import Conditions, Domain, Readings
from melodi.clock import SystemClock
from melodi.sampling.reader import BUNDLE_NS, Pass, Reader

MS = 1_000_000
ENOUGH = 40
"""Reads, after which the reader is asked to stop."""


class Quick:
    """A meter that is read at once and tells nothing; asks for a stop after so many reads."""

    name = "quick"
    domains: tuple[Domain, ...] = ()

    def __init__(self, enough: int, stopped: threading.Lock) -> None:
        self.reads = 0
        self._enough = enough
        self._stopped = stopped

    def read(self) -> Readings:
        self.reads += 1
        if self.reads == self._enough:
            self._stopped.release()
        return Readings(())

    def conditions(self) -> tuple[Conditions, ...]:
        return ()

    def close(self) -> None: ...


def delivered(period_ns: int, enough: int) -> list[Sequence[Pass]]:
    """What a reader with such a period delivers until it is asked to stop."""
    stopped = threading.Lock()
    stopped.acquire()
    bundles: list[Sequence[Pass]] = []
    meter = Quick(enough, stopped)
    Reader(meter, period_ns=period_ns, clock=SystemClock()).run(stopped, bundles.append)
    assert sum(map(len, bundles)) == meter.reads == enough
    return bundles


@pytest.mark.parametrize("period_ms", [5, 20, 50])
def test_passes_wait_for_those_that_come_soon_and_no_longer(period_ms: int) -> None:
    """Several are fed together, none after its time; what waits at the stop is told then."""
    *whole, _ = delivered(period_ms * MS, ENOUGH if period_ms < 50 else 4)
    assert whole
    for bundle in whole:
        *others, last = bundle
        assert all(one.next_ns - bundle[0].read_ns <= BUNDLE_NS for one in others)
        assert last.next_ns - bundle[0].read_ns > BUNDLE_NS


def test_a_meter_that_is_read_seldom_is_told_of_at_once() -> None:
    """Nothing is kept back for a beat that is 60 ms away."""
    assert [len(bundle) for bundle in delivered(60 * MS, 3) if bundle] == [1, 1, 1]
