"""How coarse and how old the values of NVIDIA's sensors are, as far as that is published."""

from typing import Any

from collectors.base import Measure
from collectors.nvml_sensors import Sensors

_MEAN_NS = 1_000_000_000


def refresh_and_lag_ns(
    nvml: Any, architecture: int | None, sensors: Sensors
) -> tuple[int | None, int]:
    """`refresh_ns` and `lag_ns` of a domain that `sensors` measure.

    "Part-time power measurements" (SC24) has the power sensor renewed every 20 ms on Volta and
    every 100 ms on GA100, GA10x, Ada and Hopper, and seeing at most all of that. Energy counters
    are reported to move every 20 to 100 ms, so the same figure is safe there. From GA10x on, and
    by nvml.h, a mean is over one second; GA100, which NVML calls Ampere too, is taken for such.
    """
    published = {
        nvml.NVML_DEVICE_ARCH_VOLTA: 20_000_000,
        nvml.NVML_DEVICE_ARCH_AMPERE: 100_000_000,
        nvml.NVML_DEVICE_ARCH_ADA: 100_000_000,
        nvml.NVML_DEVICE_ARCH_HOPPER: 100_000_000,
    }
    refresh_ns = None if architecture is None else published.get(architecture)
    if sensors.measure is Measure.COUNTER:
        return refresh_ns, 0
    shown_ns = refresh_ns or 0
    if sensors.is_mean and (architecture is None or architecture >= nvml.NVML_DEVICE_ARCH_AMPERE):
        return _MEAN_NS, (shown_ns + _MEAN_NS) // 2
    return refresh_ns, shown_ns
