"""The estimate is a straight line between two stated powers, and says that it is one."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.base import Measure
from collectors.estimate import EstimateCollector


class Host:
    """A host of `processors` whose time and work a test moves on."""

    def __init__(self, processors: int) -> None:
        self.processors = processors
        self.ns = 5
        self.busy_seconds = 1_000.0

    def pass_time(self, seconds: float, utilisation: float) -> None:
        self.ns += round(seconds * 1e9)
        self.busy_seconds += seconds * utilisation * self.processors

    def opened(self, **watts: float) -> EstimateCollector:
        return EstimateCollector(
            now_ns=lambda: self.ns,
            busy_seconds=lambda: self.busy_seconds,
            processors=self.processors,
            **watts,
        )


def energy_uj(collector: EstimateCollector) -> int:
    (reading,) = collector.read().values
    assert reading.energy_uj is not None
    return reading.energy_uj


@pytest.mark.parametrize(("utilisation", "watts"), [(0.0, 20), (0.5, 60), (1.0, 100)])
def test_power_is_linear_in_utilisation(utilisation: float, watts: float) -> None:
    """Idle at none, full power at all, half way at half."""
    host = Host(processors=8)
    collector = host.opened(idle_watts=20, max_watts=100)
    host.pass_time(10, utilisation)
    assert energy_uj(collector) == pytest.approx(watts * 10 * 1e6)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), min_size=1, max_size=30))
def test_how_often_it_is_read_changes_nothing(stretches: list[tuple[float, float]]) -> None:
    """The energy of a stretch is the same read once or many times, and never falls."""
    host = Host(processors=4)
    often, once = host.opened(max_watts=80), host.opened(max_watts=80)
    last_uj = 0
    for seconds, utilisation in stretches:
        host.pass_time(seconds, utilisation)
        now_uj = energy_uj(often)
        assert now_uj >= last_uj
        last_uj = now_uj
    assert energy_uj(once) == last_uj


def test_it_says_that_it_is_an_estimate() -> None:
    """The domain is marked, names the model as its source, and states its powers."""
    (domain,) = Host(processors=8).opened(idle_watts=20, max_watts=100).domains
    assert domain.estimated
    assert (domain.name, domain.source) == ("package:0", "estimate:cpu_utilisation")
    assert domain.measure is Measure.COUNTER
    assert "20 and 100 W" in domain.description


def test_a_processor_taken_offline_does_not_make_energy_fall() -> None:
    """Its busy time leaves the sum; the counter stands still instead of going back."""
    host = Host(processors=8)
    collector = host.opened(idle_watts=0, max_watts=100)
    host.pass_time(10, 1.0)
    before_uj = energy_uj(collector)
    host.busy_seconds -= 40
    assert energy_uj(collector) == before_uj


def test_powers_that_contradict_each_other_are_refused() -> None:
    """Idle above full power is a mistake to mend."""
    with pytest.raises(ValueError, match="0 <= idle <= full"):
        Host(processors=8).opened(idle_watts=50, max_watts=40)


def test_it_runs_on_this_machine() -> None:
    """Work that keeps a processor of this machine busy shows above idle power."""
    collector = EstimateCollector(now_ns=time.monotonic_ns, idle_watts=0, max_watts=100)
    deadline = time.monotonic() + 10
    while energy_uj(collector) == 0:
        assert time.monotonic() < deadline, "ten seconds of work left no trace in CPU time"
