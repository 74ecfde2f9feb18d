"""What explains a GPU's joules: its clocks, temperature, utilisation, limit, what throttles it."""

from collections.abc import Callable
from ctypes import c_uint, c_ulonglong
from functools import cache
from typing import Any

from collectors.base import Conditions
from collectors.nvml_calls import ready

# The lowest bit, left out here, says that the GPU is idle, which throttles nothing.
_THROTTLE_REASONS = {
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}


class ConditionSensors:
    """Those of one GPU; each gives None where the GPU or its driver does not tell.

    One thread may ask at a time.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        def number(function: str, *arguments: int, of: Any = c_uint) -> Callable[[], int | None]:
            answer = of()
            ask = ready(nvml, function, handle, answer, *arguments)
            return lambda: None if ask() else answer.value

        self._utilisation = nvml.c_nvmlUtilization_t()
        self._ask_utilisation = ready(
            nvml, "nvmlDeviceGetUtilizationRates", handle, self._utilisation
        )
        self._limit_mw = number("nvmlDeviceGetEnforcedPowerLimit")
        self._sm_mhz = number("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM)
        self._memory_mhz = number("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM)
        self._celsius = number("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)
        self._throttle = number("nvmlDeviceGetCurrentClocksThrottleReasons", of=c_ulonglong)

    def limit_watts(self) -> float | None:
        """What it may draw at present."""
        limit_mw = self._limit_mw()
        return None if limit_mw is None else limit_mw / 1_000

    def read(self, domain: str, at_ns: int) -> Conditions:
        """All of them, for the domain at that time."""
        told = self._ask_utilisation() == 0
        bits = self._throttle()
        return Conditions(
            domain=domain,
            at_ns=at_ns,
            sm_clock_mhz=self._sm_mhz(),
            memory_clock_mhz=self._memory_mhz(),
            power_limit_watts=self.limit_watts(),
            temperature_celsius=self._celsius(),
            utilisation_ratio=self._utilisation.gpu / 100 if told else None,
            throttle_reasons=None if bits is None else _reasons(bits),
        )


@cache
def _reasons(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in _THROTTLE_REASONS.items() if bits & bit)
