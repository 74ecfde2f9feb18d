"""Simulated domains, of this process and of another, are read like real ones and say so."""

import itertools
import time
from collections.abc import Iterator

import pytest
from power_server import PowerServer, gpu, power_server

from collectors.base import Domain, Kind, Measure, Origin, Reading
from collectors.errors import ReadFailed, Unavailable
from collectors.simulated import RemoteSimulatedCollector, SimulatedCollector

GPU = Domain(
    name="gpu:SIMULATED-0",
    kind=Kind.GPU,
    scope="gpu",
    source="simulated:counter",
    measure=Measure.COUNTER,
)


@pytest.fixture
def server() -> Iterator[PowerServer]:
    with power_server() as server:
        yield server


def opened(server: PowerServer) -> RemoteSimulatedCollector:
    return RemoteSimulatedCollector(server.url, now_ns=time.monotonic_ns)


# ---- in this process -----------------------------------------------------------------------


def test_a_sensor_is_asked_for_the_time_of_the_reading() -> None:
    """The reading carries the very time that the sensor was asked for."""
    clock = itertools.count(0, 1_000)
    sensor = (GPU, lambda at_ns: (at_ns * 7, 250_000_000))
    collector = SimulatedCollector([sensor], now_ns=lambda: next(clock))
    collector.read()
    assert collector.read().values == (Reading(GPU.name, 1_000, 0, 7_000, 250_000_000),)


def test_what_is_simulated_is_never_passed_off_as_a_sensor() -> None:
    """Whatever the domain claims, its origin is the simulator and it is exclusive."""
    collector = SimulatedCollector([(GPU, lambda _: (0, 0))], now_ns=lambda: 0)
    (domain,) = collector.domains
    assert (domain.origin, domain.exclusive) == (Origin.SIMULATOR, True)


def test_no_domain_at_all_is_unavailable() -> None:
    """An empty simulation cannot be mistaken for one that draws nothing."""
    with pytest.raises(Unavailable):
        SimulatedCollector([], now_ns=lambda: 0)


# ---- in another process --------------------------------------------------------------------


def test_a_remote_simulator_is_read_over_one_connection(server: PowerServer) -> None:
    """Domains and values are those of the reply, over one connection that is kept alive."""
    collector = opened(server)
    (domain,) = collector.domains
    assert domain.name == "gpu:SIMULATED-0"
    assert (domain.measure, domain.refresh_ns) == (Measure.COUNTER, 100_000_000)
    assert (domain.origin, domain.exclusive) == (Origin.SIMULATOR, True)
    for energy_uj in range(0, 1_000, 10):
        server.domains = [gpu(energy_uj=energy_uj)]
        (reading,) = collector.read().values
        assert (reading.energy_uj, reading.power_uw) == (energy_uj, 250_000_000)
    assert server.connections == 1
    collector.close()


def test_a_reading_spans_its_round_trip(server: PowerServer) -> None:
    """Its time is the middle of the request, so it lies within what the caller saw pass."""
    collector = opened(server)
    before_ns = time.monotonic_ns()
    (reading,) = collector.read().values
    after_ns = time.monotonic_ns()
    assert before_ns <= reading.at_ns - reading.half_width_ns
    assert reading.at_ns + reading.half_width_ns <= after_ns
    assert reading.half_width_ns > 0
    collector.close()


def test_a_domain_without_a_counter_is_a_gauge(server: PowerServer) -> None:
    """Null energy makes a gauge, whose power is read and whose energy stays unknown."""
    server.domains = [gpu(energy_uj=None)]
    collector = opened(server)
    assert collector.domains[0].measure is Measure.GAUGE
    assert collector.read().values[0].energy_uj is None
    collector.close()


def test_nobody_at_the_url_is_unavailable() -> None:
    """A simulator that is not there is absent, and the remedy says how to start one."""
    with power_server() as server:
        url = server.url
    with pytest.raises(Unavailable) as caught:
        RemoteSimulatedCollector(url, now_ns=lambda: 0)
    assert "melodi simulate" in str(caught.value.remedy)


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"domains": [{"name": "gpu:0"}]}'])
def test_somebody_else_at_the_url_is_unavailable(server: PowerServer, body: bytes) -> None:
    """A server that is no simulator is told apart by what it says."""
    server.body = body
    with pytest.raises(Unavailable):
        opened(server)


@pytest.mark.parametrize("url", ["127.0.0.1:11434", "https://127.0.0.1", "http://"])
def test_what_is_no_url_is_refused_with_an_example(url: str) -> None:
    """A mistyped URL is a mistake to mend, not an absent simulator."""
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        RemoteSimulatedCollector(url, now_ns=lambda: 0)


def test_a_connection_that_was_cut_costs_one_reading(server: PowerServer) -> None:
    """The next reading connects again."""
    collector = opened(server)
    server.cut_connections()
    with pytest.raises(ReadFailed):
        collector.read()
    assert collector.read().values[0].energy_uj == 1_000_000
    collector.close()


def test_a_simulator_that_hangs_holds_nobody_up_for_long(server: PowerServer) -> None:
    """A read gives up by itself, and what comes late is not taken for the next answer."""
    collector = opened(server)
    server.answering.clear()
    with pytest.raises(ReadFailed):
        collector.read()
    server.domains = [gpu(energy_uj=2_000_000)]
    server.answering.set()
    assert collector.read().values[0].energy_uj == 2_000_000
    collector.close()


def test_an_error_of_the_simulator_is_a_failed_read(server: PowerServer) -> None:
    """A reply without power in it is not a power of 0, and the next reading works."""
    collector = opened(server)
    server.status, server.body = 500, b"oops"
    with pytest.raises(ReadFailed, match="HTTP 500"):
        collector.read()
    server.status, server.body = 200, None
    assert collector.read().values
    collector.close()


def test_a_domain_that_went_away_is_a_failure_among_the_others(server: PowerServer) -> None:
    """One simulated GPU less leaves the other's readings."""
    server.domains = [gpu(), gpu(name="gpu:SIMULATED-1")]
    collector = opened(server)
    server.domains = [gpu()]
    readings = collector.read()
    assert [reading.domain for reading in readings.values] == ["gpu:SIMULATED-0"]
    assert [failure.domain for failure in readings.failures] == ["gpu:SIMULATED-1"]
    collector.close()
