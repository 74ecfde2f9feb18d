"""The energy and power sensors of NVIDIA GPUs, and which of them one GPU answers to."""

from collections.abc import Callable
from ctypes import c_ulonglong
from dataclasses import dataclass
from functools import partial
from typing import Any

from collectors.base import Measure
from collectors.errors import CollectorError, NotPermitted, ReadFailed, Unavailable
from collectors.nvml_calls import ready

PATIENCE = 5
"""A sensor that works may answer NotSupported when it is polled fast; so many in a row are true."""

_PROBE_PAUSE_SECONDS = 0.01

LOST_REMEDY = "the GPU is looked for again by itself; if it stays away, reset it or reboot the host"
_DENIED = "give this user, or this container, access to /dev/nvidiactl and the /dev/nvidia* devices"
_NO_SENSOR = "nothing to do: this model (an integrated or very old GPU) cannot be measured by NVML"


Ask = Callable[[Any, Any], int]
"""Takes the binding and a device handle, gives milliwatts or millijoules, raises NVMLError."""


@dataclass(frozen=True, slots=True)
class Sensors:
    """What one GPU is measured by."""

    measure: Measure
    source: str
    scope: str
    """`gpu`, or `module` where a superchip's sensor covers its CPU too."""
    read: Ask
    """Millijoules of a counter, milliwatts of a gauge."""
    is_mean: bool = False
    """Whether it may be a trailing mean: no good for short requests."""
    read_power_mw: Ask | None = None
    """Power beside a counter, of the same scope, where it can be had; asked only in doubt."""

    def of(self, nvml: Any, handle: Any) -> Callable[[], int]:
        """Does what `read` does for this GPU; one thread may call it at a time.

        It is called many times a second, so a counter is asked past the binding's wrapper.
        """
        if self.measure is Measure.GAUGE:
            return partial(self.read, nvml, handle)
        energy_mj = c_ulonglong()
        ask = ready(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle, energy_mj)

        def read() -> int:
            code = ask()
            if code:
                raise nvml.NVMLError(code)
            return energy_mj.value

        return read


def _energy_mj(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def _usage_mw(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetPowerUsage(handle))


def _field_mw(field: str, scope: str) -> Ask:
    def read_mw(nvml: Any, handle: Any) -> int:
        asked = (getattr(nvml, field), getattr(nvml, f"NVML_POWER_SCOPE_{scope.upper()}"))
        (entry,) = nvml.nvmlDeviceGetFieldValues(handle, [asked])
        # The call succeeds when any field was filled, so each entry says for itself.
        if entry.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(entry.nvmlReturn)
        return int(entry.value.uiVal)

    return read_mw


_NOW_MW = {scope: _field_mw("NVML_FI_DEV_POWER_INSTANT", scope) for scope in ("gpu", "module")}
_MEAN_MW = _field_mw("NVML_FI_DEV_POWER_AVERAGE", "gpu")
_GAUGES = (
    Sensors(Measure.GAUGE, "nvml:power_instant", "gpu", _NOW_MW["gpu"]),
    Sensors(Measure.GAUGE, "nvml:power_instant", "module", _NOW_MW["module"]),
    Sensors(Measure.GAUGE, "nvml:power_average", "gpu", _MEAN_MW, is_mean=True),
    Sensors(Measure.GAUGE, "nvml:power_usage", "gpu", _usage_mw, is_mean=True),
)


def choose_sensors(nvml: Any, handle: Any, sleep: Callable[[float], None]) -> Sensors:
    """The best sensors that `handle` gives real values for.

    The energy counter first; without one the power now, a mean last. On a superchip, told by its
    answering for the module, the counter covers the module, so power is asked for that too.
    Raises what `collector_error` makes of the binding's errors, Unavailable where none answers.
    """
    refusals: list[CollectorError] = []

    def answers(ask: Ask, attempts: int = PATIENCE) -> bool:
        for _ in range(attempts):
            try:
                ask(nvml, handle)
            except nvml.NVMLError as error:
                refusals.append(collector_error(nvml, error, "no reading"))
                if error.value != nvml.NVML_ERROR_NOT_SUPPORTED:
                    return False
                sleep(_PROBE_PAUSE_SECONDS)
            else:
                return True
        return False

    if answers(_energy_mj):
        scope = "module" if answers(_NOW_MW["module"], attempts=1) else "gpu"
        power = _NOW_MW[scope] if answers(_NOW_MW[scope]) else None
        return Sensors(Measure.COUNTER, "nvml:total_energy", scope, _energy_mj, read_power_mw=power)
    for gauge in _GAUGES:
        if answers(gauge.read):
            return gauge
    raise min(refusals, key=lambda refusal: isinstance(refusal, Unavailable))


def collector_error(nvml: Any, error: Exception, what: str) -> CollectorError:
    """The binding's error in our terms: refused, never to be had, or failed this time."""
    code = getattr(error, "value", None)
    if code == nvml.NVML_ERROR_NO_PERMISSION:
        return NotPermitted(f"{what}: {error}", remedy=_DENIED)
    if code in {nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND}:
        return Unavailable(f"{what}: {error}", remedy=_NO_SENSOR)
    return ReadFailed(f"{what}: {error}", remedy=LOST_REMEDY)
