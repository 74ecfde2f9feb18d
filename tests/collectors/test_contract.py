"""What every collector promises, whichever meter it reads."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hwmon_tree import HwmonTree
from nvml_stub import NvmlStub
from power_server import power_server
from powercap_tree import PowercapTree

from collectors.base import Collector, Domain, Kind, Measure
from collectors.estimate import EstimateCollector
from collectors.hwmon import HwmonCollector
from collectors.nvml import NvmlCollector
from collectors.overlap import NotAdded
from collectors.rapl import RaplCollector
from collectors.registry import COLLECTORS
from collectors.simulated import RemoteSimulatedCollector, SimulatedCollector

Opener = Callable[[], Collector]


def nvml(request: pytest.FixtureRequest) -> Iterator[Opener]:
    stub: NvmlStub = request.getfixturevalue("stub")
    yield lambda: NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep)


def rapl(request: pytest.FixtureRequest) -> Iterator[Opener]:
    tree: PowercapTree = request.getfixturevalue("tree")
    tree.add("intel-rapl:0", "package-0", energy_uj=5)
    tree.add("intel-rapl:0:0", "dram", energy_uj=5)
    yield lambda: RaplCollector(now_ns=time.monotonic_ns, sysfs_root=tree.root)


def hwmon(request: pytest.FixtureRequest) -> Iterator[Opener]:
    tree = HwmonTree(request.getfixturevalue("tmp_path"))
    tree.add_acpi(0, "Grace Power Socket 0", 5)
    tree.add(1, "xe", "0000:03:00.0", energy1_input=5)
    yield lambda: HwmonCollector(now_ns=time.monotonic_ns, sysfs_root=tree.root)


def marked_as_not_added(request: pytest.FixtureRequest) -> Iterator[Opener]:
    for opened in rapl(request):
        yield lambda opened=opened: NotAdded(opened(), {"package:0"})


def estimate(_: pytest.FixtureRequest) -> Iterator[Opener]:
    yield lambda: EstimateCollector(now_ns=time.monotonic_ns)


def simulated(_: pytest.FixtureRequest) -> Iterator[Opener]:
    domain = Domain(
        name="gpu:SIMULATED-0",
        kind=Kind.GPU,
        scope="gpu",
        source="simulated:counter",
        measure=Measure.COUNTER,
    )
    read = [(domain, lambda at_ns: (at_ns, 1))]
    yield lambda: SimulatedCollector(read, now_ns=time.monotonic_ns)


def simulated_elsewhere(_: pytest.FixtureRequest) -> Iterator[Opener]:
    with power_server() as server:
        yield lambda: RemoteSimulatedCollector(server.url, now_ns=time.monotonic_ns)


MAKERS: list[Callable[[pytest.FixtureRequest], Iterator[Opener]]] = [
    nvml,
    rapl,
    hwmon,
    marked_as_not_added,
    estimate,
    simulated,
    simulated_elsewhere,
]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def opener(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Opens collectors of one kind."""
    yield from request.param(request)


@pytest.fixture
def collector(opener: Opener) -> Iterator[Collector]:
    opened = opener()
    yield opened
    opened.close()


def test_it_is_called_as_the_registry_calls_it(collector: Collector) -> None:
    """A name in a probe is the name in the settings."""
    assert collector.name in COLLECTORS


def test_its_domains_are_unique_and_described(collector: Collector) -> None:
    """There is at least one domain, each with a name of its own, a scope and a source."""
    domains = collector.domains
    assert domains
    assert len({domain.name for domain in domains}) == len(domains)
    assert all(domain.scope and ":" in domain.source and ":" in domain.name for domain in domains)


def test_each_pass_reads_every_domain_as_it_is_described(collector: Collector) -> None:
    """A counter gives energy and a gauge power, as integers that are never negative."""
    for _ in range(3):
        readings = collector.read()
        assert readings.failures == ()
        by_name = {reading.domain: reading for reading in readings.values}
        for domain in collector.domains:
            reading = by_name.pop(domain.name)
            counts = domain.measure is Measure.COUNTER
            value = reading.energy_uj if counts else reading.power_uw
            assert isinstance(value, int)
            assert value >= 0
            assert reading.half_width_ns >= 0
        assert not by_name


def test_its_conditions_are_of_its_domains(collector: Collector) -> None:
    """Conditions, where there are any, name a domain of the same collector."""
    names = {domain.name for domain in collector.domains}
    assert {conditions.domain for conditions in collector.conditions()} <= names


def test_it_may_be_closed_twice(opener: Opener, collector: Collector) -> None:
    """To repeat it harms neither what took its descriptors nor another one of its kind."""
    other = opener()
    collector.close()
    with ExitStack() as stack:
        files = [stack.enter_context(Path(os.devnull).open()) for _ in range(20)]
        collector.close()
        assert all(os.fstat(one.fileno()) for one in files)
        assert other.read().failures == ()
    other.close()
