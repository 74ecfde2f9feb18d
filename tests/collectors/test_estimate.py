"""The estimate is a straight line between two stated powers, and says that it is one."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from powercap_tree import PowercapTree

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

    def opened(self, sysfs_root: Path = Path("/nowhere"), **watts: float) -> EstimateCollector:
        return EstimateCollector(
            now_ns=lambda: self.ns,
            busy_seconds=lambda: self.busy_seconds,
            processors=self.processors,
            memory_bytes=64 * 2**30,
            sysfs_root=sysfs_root,
            **watts,
        )


def energy_uj(collector: EstimateCollector) -> int:
    cpu, _ = collector.read().values
    assert cpu.energy_uj is not None
    return cpu.energy_uj


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
    """Each domain is marked, names the model as its source, and states its powers."""
    domains = Host(processors=8).opened(idle_watts=20, max_watts=100).domains
    assert [(one.name, one.source) for one in domains] == [
        ("package:0", "estimate:cpu_utilisation"),
        ("dram:0", "estimate:memory_size"),
    ]
    for domain in domains:
        assert domain.estimated
        assert domain.measure is Measure.COUNTER
    assert "20 and 100 W" in domains[0].description
    assert "64 GiB" in domains[1].description


def test_memory_draws_by_its_size_whatever_is_done() -> None:
    """64 GiB at 0.375 W each are 24 W, idle or busy."""
    host = Host(processors=8)
    collector = host.opened(max_watts=100)
    for utilisation in (0, 1):
        before = collector.read().values[1].energy_uj or 0
        host.pass_time(10, utilisation)
        assert (collector.read().values[1].energy_uj or 0) - before == 240_000_000


@pytest.mark.parametrize(
    ("limits_watts", "watts"),
    [((120, 120), 240), ((120, None), 32), ((4095, 120), 32), ((), 32)],
)
def test_full_power_is_the_packages_limit_where_it_is_shown(
    tree: PowercapTree, limits_watts: tuple[int | None, ...], watts: float
) -> None:
    """Everybody may read the limit, even where the counter is for root; one that is none is not."""
    for socket, limit in enumerate(limits_watts):
        tree.add(f"intel-rapl:{socket}", f"package-{socket}")
        tree.forbid(f"intel-rapl:{socket}")
        if limit is not None:
            tree.limit(f"intel-rapl:{socket}", limit)
    domain = Host(processors=8).opened(sysfs_root=tree.root).domains[0]
    assert domain.max_power_watts == watts


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
