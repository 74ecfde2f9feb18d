"""How often a meter renews its values is observed, not believed."""

import pytest
from nvml_stub import Call, NvmlStub
from pynvml import NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_TIMEOUT

from collectors.base import Domain, Kind, Measure
from collectors.nvml import NvmlCollector
from collectors.refresh import Refresh, observe_refresh
from collectors.simulated import SimulatedCollector


def observed(stub: NvmlStub, seconds: float = 2) -> Refresh:
    collector = NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep)
    (refresh,) = observe_refresh(collector, seconds, now_ns=stub.now_ns, sleep=stub.sleep)
    return refresh


@pytest.mark.parametrize("refresh_ns", [20_000_000, 100_000_000])
def test_a_counter_that_is_renewed_regularly_shows_its_period(
    stub: NvmlStub, refresh_ns: int
) -> None:
    """The period is found to the 5 ms between polls."""
    stub.set_refresh_ns(refresh_ns)
    refresh = observed(stub)
    assert refresh.domain == f"gpu:{stub.uuid()}"
    assert refresh.moved
    assert refresh.period_ns == pytest.approx(refresh_ns, abs=5_000_000)


def test_a_counter_that_stands_still_did_not_move(stub: NvmlStub) -> None:
    """A stuck counter has no period, and that is what a person must hear."""
    stub.set_refresh_ns(3_600_000_000_000)
    still = Refresh(f"gpu:{stub.uuid()}", moved=False, period_ns=None, mean_watts=None)
    assert observed(stub) == still


def test_the_power_is_told_from_a_counter_and_from_a_gauge(stub: NvmlStub) -> None:
    """300 W is 300 W either way; a counter that fell in between tells none."""
    assert observed(stub).mean_watts == pytest.approx(300, rel=1e-3)
    collector = NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep)

    def sleep(seconds: float) -> None:
        stub.sleep(seconds)
        if stub.now_ns() // 5_000_000 % 100 == 50:
            stub.restart_counter()

    (refresh,) = observe_refresh(collector, 2, now_ns=stub.now_ns, sleep=sleep)
    assert (refresh.moved, refresh.mean_watts) == (True, None)
    stub.fail(Call.ENERGY, NVML_ERROR_NOT_SUPPORTED)
    assert observed(stub).mean_watts == pytest.approx(300, rel=1e-3)


def test_too_few_changes_make_no_period(stub: NvmlStub) -> None:
    """Two changes in two seconds show that it moves, not how often."""
    stub.set_refresh_ns(900_000_000)
    refresh = observed(stub)
    assert (refresh.moved, refresh.period_ns) == (True, None)


def test_the_power_of_a_gauge_is_watched(stub: NvmlStub) -> None:
    """Without a counter the power's changes tell the refresh."""
    stub.fail(Call.ENERGY, NVML_ERROR_NOT_SUPPORTED)
    stub.script([(10, 500)])
    assert observed(stub).period_ns == pytest.approx(100_000_000, abs=5_000_000)


def test_reads_that_fail_are_left_out(stub: NvmlStub) -> None:
    """A hiccup in the middle is no change and ends nothing."""
    collector = NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep)
    stub.fail(Call.ENERGY, NVML_ERROR_TIMEOUT, count=3)
    (refresh,) = observe_refresh(collector, 2, now_ns=stub.now_ns, sleep=stub.sleep)
    assert refresh.period_ns == pytest.approx(100_000_000, abs=5_000_000)


def test_every_domain_is_judged_by_itself(stub: NvmlStub) -> None:
    """One that moves does not vouch for one that does not."""

    def domain(name: str) -> Domain:
        return Domain(name=name, kind=Kind.GPU, scope="gpu", source="test", measure=Measure.COUNTER)

    collector = SimulatedCollector(
        [
            (domain("gpu:moving"), lambda at_ns: (at_ns // 50_000_000, None)),
            (domain("gpu:still"), lambda _: (7, None)),
        ],
        now_ns=stub.now_ns,
    )
    found = observe_refresh(collector, 1, now_ns=stub.now_ns, sleep=stub.sleep)
    assert [(refresh.domain, refresh.period_ns) for refresh in found] == [
        ("gpu:moving", 50_000_000),
        ("gpu:still", None),
    ]
