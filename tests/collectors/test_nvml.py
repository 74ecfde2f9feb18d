"""The NVML collector over the real binding and a stub driver whose true energy is known."""

from pathlib import Path

import pynvml
import pytest
from nvml_stub import Call, NvmlStub, installed

from collectors.base import Kind, Measure, Reading
from collectors.errors import NotPermitted, ReadFailed, Unavailable
from collectors.nvml import NvmlCollector
from collectors.surroundings import Surroundings

LOST = pynvml.NVML_ERROR_GPU_IS_LOST
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


def opened(stub: NvmlStub) -> NvmlCollector:
    return NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep)


def only(collector: NvmlCollector) -> Reading:
    (reading,) = collector.read().values
    return reading


# ---- what is measured by what --------------------------------------------------------------


def test_the_counter_is_preferred_and_said_to_be_the_source(stub: NvmlStub) -> None:
    """A GPU with an energy counter is a counter domain that names it, keyed by UUID."""
    (domain,) = opened(stub).domains
    assert domain.name == f"gpu:{stub.uuid()}"
    assert (domain.kind, domain.scope) == (Kind.GPU, "gpu")
    assert (domain.source, domain.measure) == ("nvml:total_energy", Measure.COUNTER)
    assert domain.range_uj is None
    assert domain.max_power_watts == pytest.approx(770)


def test_energy_is_the_true_integral_up_to_the_last_refresh(stub: NvmlStub) -> None:
    """Over a ramp, what the counter gains is what the script drew, in microjoules."""
    stub.script([(2, 300), (4, 500), (6, 100)])
    collector = opened(stub)
    stub.set_time_ns(1_000_000_000)
    before = only(collector)
    stub.set_time_ns(5_050_000_000)
    after = only(collector)
    true_uj = stub.true_energy_uj(1_000_000_000, 5_000_000_000)
    assert after.energy_uj is not None
    assert before.energy_uj is not None
    assert after.energy_uj - before.energy_uj == pytest.approx(true_uj, abs=2_000)
    assert true_uj == pytest.approx(1_500e6)
    assert after.at_ns == 5_050_000_000


@pytest.mark.parametrize(
    ("refused", "source", "scope"),
    [
        ([], "nvml:power_instant", "gpu"),
        ([Call.INSTANT_GPU], "nvml:power_instant", "module"),
        ([Call.INSTANT_GPU, Call.INSTANT_MODULE], "nvml:power_average", "gpu"),
        ([Call.INSTANT_GPU, Call.INSTANT_MODULE, Call.AVERAGE], "nvml:power_usage", "gpu"),
    ],
)
def test_without_a_counter_the_best_power_is_named(
    stub: NvmlStub, refused: list[Call], source: str, scope: str
) -> None:
    """Present power before means, the GPU before the module, and the domain says which it is."""
    stub.mend(Call.INSTANT_MODULE)
    for call in (Call.ENERGY, *refused):
        stub.fail(call, NOT_SUPPORTED)
    collector = opened(stub)
    (domain,) = collector.domains
    assert (domain.source, domain.scope, domain.measure) == (source, scope, Measure.GAUGE)
    assert only(collector).energy_uj is None
    assert only(collector).power_uw == 300_000_000


def test_a_mean_is_told_from_the_power_now(stub: NvmlStub) -> None:
    """After a step from 100 to 500 W the legacy reading lags by its window."""
    stub.set_window_ns(1_000_000_000)
    stub.script([(1, 100), (10, 100), (10.0001, 500)])
    for call in (Call.ENERGY, Call.INSTANT_GPU, Call.AVERAGE):
        stub.fail(call, NOT_SUPPORTED)
    collector = opened(stub)
    stub.set_time_ns(10_500_000_000)
    assert only(collector).power_uw == pytest.approx(300e6, rel=1e-3)


def test_a_superchip_is_measured_as_a_module(stub: NvmlStub) -> None:
    """Where the driver answers for the module, the counter covers it and the scope says so."""
    stub.mend(Call.INSTANT_MODULE)
    (domain,) = opened(stub).domains
    assert (domain.source, domain.scope) == ("nvml:total_energy", "module")


@pytest.mark.parametrize(
    ("architecture", "refresh_ns"),
    [
        (pynvml.NVML_DEVICE_ARCH_HOPPER, 100_000_000),
        (pynvml.NVML_DEVICE_ARCH_VOLTA, 20_000_000),
        (pynvml.NVML_DEVICE_ARCH_BLACKWELL, None),
    ],
)
def test_the_refresh_is_given_only_where_it_was_published(
    stub: NvmlStub, architecture: int, refresh_ns: int | None
) -> None:
    """An architecture that nobody measured has an unknown refresh."""
    stub.set_architecture(architecture)
    assert opened(stub).domains[0].refresh_ns == refresh_ns


@pytest.mark.parametrize(
    ("architecture", "mean_of_ms"),
    [
        (pynvml.NVML_DEVICE_ARCH_PASCAL, None),
        (pynvml.NVML_DEVICE_ARCH_VOLTA, None),
        (pynvml.NVML_DEVICE_ARCH_ADA, 1_000),
        (pynvml.NVML_DEVICE_ARCH_BLACKWELL, 1_000),
    ],
)
def test_a_mean_of_a_second_tells_nothing_finer(
    stub: NvmlStub, architecture: int, mean_of_ms: int | None
) -> None:
    """From Ampere on the legacy power is such a mean: coarse, and as old as half of it."""
    stub.set_architecture(architecture)
    for call in (Call.ENERGY, Call.INSTANT_GPU, Call.AVERAGE):
        stub.fail(call, NOT_SUPPORTED)
    (domain,) = opened(stub).domains
    if mean_of_ms:
        assert domain.refresh_ns == mean_of_ms * 1_000_000
        assert domain.lag_ns >= mean_of_ms * 500_000
    else:
        assert domain.refresh_ns == (20_000_000 if domain.lag_ns else None)


def test_a_counter_does_not_lag(stub: NvmlStub) -> None:
    """Only what is shown of power is old; a counter is placed where it changes."""
    (domain,) = opened(stub).domains
    assert (domain.refresh_ns, domain.lag_ns) == (100_000_000, 0)


def test_what_throttles_is_unknown_where_the_driver_does_not_say(stub: NvmlStub) -> None:
    """Nothing throttles it, and nobody knows, are told apart."""
    collector = opened(stub)
    assert collector.conditions()[0].throttle_reasons == ()
    stub.fail(Call.THROTTLE, NOT_SUPPORTED)
    assert collector.conditions()[0].throttle_reasons is None


def test_a_driver_without_a_function_leaves_only_that_unknown(stub: NvmlStub) -> None:
    """An old driver that lacks names, limits and clocks still measures."""
    for call in (Call.ARCHITECTURE, Call.NAME, Call.LIMIT, Call.CLOCK, Call.UTILISATION):
        stub.fail(call, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    collector = opened(stub)
    (domain,) = collector.domains
    assert (domain.refresh_ns, domain.max_power_watts) == (None, None)
    assert only(collector).energy_uj is not None
    (conditions,) = collector.conditions()
    assert conditions.sm_clock_mhz is None
    assert conditions.power_limit_watts is None
    assert conditions.utilisation_ratio is None
    assert conditions.temperature_celsius == 41


# ---- what makes a meter unusable -----------------------------------------------------------


def test_a_host_without_the_library_is_unavailable_and_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No driver is no failure; the message ends with what to do, which differs in a container."""

    def not_found(_: str) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", not_found)
    for container, words in ((False, "nvidia-smi"), (True, "--gpus all")):
        here = Surroundings(container=container)
        monkeypatch.setattr("collectors.nvml.surroundings", lambda here=here: here)
        with pytest.raises(Unavailable) as caught:
            NvmlCollector(now_ns=lambda: 0)
        assert "driver" in str(caught.value.remedy)
        assert words in str(caught.value.remedy)


def test_a_driver_that_starts_and_gives_no_power_is_unavailable(stub: NvmlStub) -> None:
    """Init and count prove nothing: an integrated GPU passes both and measures nothing."""
    for call in (Call.ENERGY, Call.INSTANT_GPU, Call.AVERAGE, Call.USAGE):
        stub.fail(call, NOT_SUPPORTED)
    with pytest.raises(Unavailable):
        opened(stub)
    assert stub.initialised == 0


def test_a_host_without_gpus_is_unavailable(nvml_library: Path) -> None:
    """A driver with nothing to drive is absent, not an empty success."""
    with installed(nvml_library, devices=0) as stub, pytest.raises(Unavailable, match="no GPU"):
        opened(stub)


@pytest.mark.parametrize("call", [Call.INIT, Call.ENERGY])
def test_a_refusal_is_told_from_absence(stub: NvmlStub, call: Call) -> None:
    """Where access is denied the remedy is to grant it."""
    for refused in {call, Call.INSTANT_GPU, Call.AVERAGE, Call.USAGE} - {Call.INIT}:
        stub.fail(refused, pynvml.NVML_ERROR_NO_PERMISSION)
    if call is Call.INIT:
        stub.fail(call, pynvml.NVML_ERROR_NO_PERMISSION)
    with pytest.raises(NotPermitted) as caught:
        opened(stub)
    assert "/dev/nvidia" in str(caught.value.remedy)


def test_one_refusal_outweighs_what_is_not_supported(stub: NvmlStub) -> None:
    """A counter that may not be read is a matter of access, though nothing else is there."""
    stub.fail(Call.ENERGY, pynvml.NVML_ERROR_NO_PERMISSION)
    for call in (Call.INSTANT_GPU, Call.AVERAGE, Call.USAGE):
        stub.fail(call, NOT_SUPPORTED)
    with pytest.raises(NotPermitted):
        opened(stub)


def test_a_driver_updated_under_a_running_one_says_so(stub: NvmlStub) -> None:
    """The version mismatch after an update has its own remedy."""
    stub.fail(Call.INIT, pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    with pytest.raises(Unavailable) as caught:
        opened(stub)
    assert "reboot" in str(caught.value.remedy)


def test_gpus_that_are_all_lost_at_the_start_may_be_tried_again(stub: NvmlStub) -> None:
    """A lost GPU is there and fails, which is not the same as having none."""
    for call in (Call.ENERGY, Call.INSTANT_GPU, Call.AVERAGE, Call.USAGE):
        stub.fail(call, LOST)
    with pytest.raises(ReadFailed):
        opened(stub)


def test_one_gpu_that_cannot_be_read_does_not_hide_the_others(eight: NvmlStub) -> None:
    """Seven are measured, and the eighth is said to be missing."""
    eight.fail(Call.HANDLE, LOST, device=3)
    collector = opened(eight)
    assert len(collector.domains) == 7
    assert len(collector.unproven) == 1
    assert "GPU 3" in collector.unproven[0].reason


def test_opening_and_closing_leave_nothing_open(stub: NvmlStub) -> None:
    """It is initialised once, held, and given back; closing twice does no harm."""
    collector = opened(stub)
    for _ in range(10):
        collector.read()
    assert (stub.initialised, stub.calls(Call.INIT)) == (1, 1)
    collector.close()
    assert stub.initialised == 0
    collector.close()


# ---- many GPUs -----------------------------------------------------------------------------


def test_every_gpu_keeps_its_own_counter(eight: NvmlStub) -> None:
    """Eight GPUs are eight series by UUID, never one interleaved, never averaged."""
    collector = opened(eight)
    start_ns = eight.now_ns()
    before = {reading.domain: reading.energy_uj for reading in collector.read().values}
    eight.set_time_ns(start_ns + 10_000_000_000)
    after = {reading.domain: reading.energy_uj for reading in collector.read().values}
    for device in range(8):
        name = f"gpu:{eight.uuid(device)}"
        gained = (after[name] or 0) - (before[name] or 0)
        assert gained == pytest.approx(1e9 * (device + 1), rel=0.011)


def test_mig_rows_count_once_by_their_parent(eight: NvmlStub) -> None:
    """Instances repeat the energy of the whole GPU, so they are not domains of their own."""
    for row in (2, 3, 4):
        eight.make_mig_row(row, parent=1)
    names = [domain.name for domain in opened(eight).domains]
    assert names == [f"gpu:{eight.uuid(device)}" for device in (0, 1, 5, 6, 7)]


# ---- conditions and processes --------------------------------------------------------------


def test_conditions_explain_the_joules(stub: NvmlStub) -> None:
    """Clocks, temperature, limit, utilisation and throttle reasons in their units."""
    stub.set_utilisation_percent(87)
    stub.set_throttle_reasons(0x001 | 0x004 | 0x040)
    (conditions,) = opened(stub).conditions()
    assert conditions.domain == f"gpu:{stub.uuid()}"
    assert (conditions.sm_clock_mhz, conditions.memory_clock_mhz) == (1980, 2619)
    assert conditions.power_limit_watts == 700
    assert conditions.temperature_celsius == 41
    assert conditions.utilisation_ratio == pytest.approx(0.87)
    assert conditions.throttle_reasons == ("sw_power_cap", "hw_thermal_slowdown")


def test_running_processes_are_given_by_domain_and_pid(eight: NvmlStub) -> None:
    """Instances of one process add up; a GPU without processes has none, which is known."""
    eight.add_process(4711, 3_000, instance=1, device=1)
    eight.add_process(4711, 4_000, instance=2, device=1)
    eight.add_process(99, 2**64 - 1, device=1)
    eight.fail(Call.PROCESSES, NOT_SUPPORTED, device=5)
    found = opened(eight).running_processes()
    assert found[f"gpu:{eight.uuid(1)}"] == {4711: 7_000, 99: None}
    assert found[f"gpu:{eight.uuid(0)}"] == {}
    assert f"gpu:{eight.uuid(5)}" not in found
