"""The stub driver shows what each family of GPUs would, so that tests on it mean something."""

from typing import Any

import pynvml
import pytest
from nvml_stub import SENSORS, NvmlStub

SECOND_NS = 1_000_000_000
MS = 1_000_000


def shown(at_ms: int, stub: NvmlStub) -> tuple[float, float, int]:
    """Watts now, watts of the mean, and millijoules, as the binding gives them."""
    stub.set_time_ns(at_ms * MS)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    fields: list[Any] = pynvml.nvmlDeviceGetFieldValues(
        handle, [pynvml.NVML_FI_DEV_POWER_INSTANT, pynvml.NVML_FI_DEV_POWER_AVERAGE]
    )
    now, mean = (field.value.uiVal / 1_000 for field in fields)
    assert mean == pynvml.nvmlDeviceGetPowerUsage(handle) / 1_000
    return now, mean, pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)


@pytest.fixture
def wave(stub: NvmlStub) -> NvmlStub:
    """400 W for the first 30 ms of each 100 ms, else 100 W: 190 W in the mean."""
    pynvml.nvmlInit()
    stub.library.stub_reset(1)
    pynvml.nvmlInit()
    points = [(0, 400), (0.03, 400), (0.030001, 100), (0.099999, 100), (0.1, 400)]
    stub.script(points, repeat_seconds=0.1)
    return stub


@pytest.mark.parametrize(
    ("family", "phase_ms", "watts"),
    [
        ("Volta", 0, 400),
        ("Volta", 15, 250),
        ("GA100", 0, 100),
        ("GA100", 30, 400),
        ("GA10x", 30, 190),
        ("Ada", 30, 190),
        ("Hopper", 0, 100),
        ("Hopper", 30, 400),
    ],
)
def test_a_sensor_shows_the_part_of_each_refresh_that_it_observes(
    wave: NvmlStub, family: str, phase_ms: int, watts: float
) -> None:
    """What sees a quarter of the time may see only the peaks of a wave, or none of them."""
    wave.behave_as(SENSORS[family], phase_ms=phase_ms)
    for at_ms in (5_039, 9_039):
        assert shown(at_ms, wave)[:2] == pytest.approx((watts, watts), rel=1e-3)


def test_a_mean_of_a_second_lags_and_the_counter_does_not(wave: NvmlStub) -> None:
    """On Ada a step shows in the mean by tenths, and in the counter at the next refresh."""
    wave.library.stub_reset(1)
    pynvml.nvmlInit()
    wave.behave_as(SENSORS["Ada"])
    wave.script([(5, 100), (5.000001, 300)])
    assert shown(5_500, wave) == pytest.approx((300, 200, 650_000), rel=1e-4)
    assert shown(5_599, wave) == pytest.approx((300, 200, 650_000), rel=1e-4)
    assert shown(6_000, wave)[1] == pytest.approx(300, rel=1e-4)


def test_a_counter_may_be_made_to_add_up_only_what_is_observed(wave: NvmlStub) -> None:
    """Nobody says whether real counters do: both can be tried."""
    wave.behave_as(SENSORS["Hopper"], phase_ms=30)
    true_mj = shown(10_030, wave)[2]
    assert true_mj == pytest.approx(10_000 * 190 + 30 * 400, rel=1e-3)
    wave.count_observed()
    assert shown(10_030, wave)[2] == pytest.approx(10_030 * 400, rel=1e-3)


def test_a_script_may_be_read_in_any_order_of_time(wave: NvmlStub) -> None:
    """The truth of a stretch is the integral of the script, over any number of rounds."""
    assert wave.true_energy_uj(0, 10 * SECOND_NS) == pytest.approx(1_900e6, rel=1e-4)
    assert wave.true_energy_uj(30 * MS, 130 * MS) == pytest.approx(19e6, rel=1e-4)
    assert wave.true_energy_uj(-70 * MS, 30 * MS) == pytest.approx(19e6, rel=1e-4)
    assert wave.true_energy_uj(5 * MS, 10 * MS) == pytest.approx(2e6, rel=1e-6)
