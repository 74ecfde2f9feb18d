"""The energy and power sensors of NVIDIA GPUs, and which of them one GPU answers to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from collectors.base import Measure
from collectors.errors import CollectorError, NotPermitted, ReadFailed, Unavailable

PATIENCE = 5
"""A sensor that works may answer NotSupported when it is polled fast; so many in a row are true."""

_PROBE_PAUSE_SECONDS = 0.01

_DENIED = "give this user, or this container, access to /dev/nvidiactl and the /dev/nvidia* devices"
_LOST = "the GPU is looked for again by itself; if it stays away, reset it or reboot the host"
_NO_SENSOR = "nothing to do: this model (an integrated or very old GPU) cannot be measured by NVML"


@dataclass(frozen=True, slots=True)
class PowerSensor:
    """One way to ask a GPU for its power; `read_mw` takes the binding and a device handle."""

    source: str
    scope: str
    read_mw: Callable[[Any, Any], int]


@dataclass(frozen=True, slots=True)
class Sensors:
    """What one GPU is measured by."""

    measure: Measure
    source: str
    scope: str
    power: PowerSensor | None
    """For a gauge its measure; beside a counter the shape of power in time, where there is one."""


def read_energy_mj(nvml: Any, handle: Any) -> int:
    """Millijoules since the driver was loaded; Volta and newer."""
    return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def _usage_mw(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetPowerUsage(handle))


def _field_mw(field: str, scope: str) -> Callable[[Any, Any], int]:
    def read_mw(nvml: Any, handle: Any) -> int:
        asked = (getattr(nvml, field), getattr(nvml, scope))
        (entry,) = nvml.nvmlDeviceGetFieldValues(handle, [asked])
        # The call succeeds when any field was filled, so each entry says for itself.
        if entry.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(entry.nvmlReturn)
        return int(entry.value.uiVal)

    return read_mw


_GPU, _MODULE = "NVML_POWER_SCOPE_GPU", "NVML_POWER_SCOPE_MODULE"
_INSTANT, _AVERAGE = "NVML_FI_DEV_POWER_INSTANT", "NVML_FI_DEV_POWER_AVERAGE"

_GPU_NOW = PowerSensor("nvml:power_instant", "gpu", _field_mw(_INSTANT, _GPU))
_MODULE_NOW = PowerSensor("nvml:power_instant", "module", _field_mw(_INSTANT, _MODULE))
# On most GPUs the last two are trailing means of a second: no good for short requests.
_GPU_MEAN = PowerSensor("nvml:power_average", "gpu", _field_mw(_AVERAGE, _GPU))
_GPU_USAGE = PowerSensor("nvml:power_usage", "gpu", _usage_mw)


def choose_sensors(nvml: Any, handle: Any, sleep: Callable[[float], None]) -> Sensors:
    """The best sensors that `handle` gives real values for.

    The energy counter first; without one the power now, a mean last. On a superchip, told by its
    answering for the module, the counter covers the module, so power is asked for that too.
    Raises what `collector_error` makes of the binding's errors, Unavailable where none answers.
    """
    refusals: list[CollectorError] = []

    def answers(read: Callable[[Any, Any], int], attempts: int = PATIENCE) -> bool:
        for _ in range(attempts):
            try:
                read(nvml, handle)
            except nvml.NVMLError as error:
                refusals.append(collector_error(nvml, error, "no reading"))
                if error.value != nvml.NVML_ERROR_NOT_SUPPORTED:
                    return False
                sleep(_PROBE_PAUSE_SECONDS)
            else:
                return True
        return False

    if answers(read_energy_mj):
        shape = _MODULE_NOW if answers(_MODULE_NOW.read_mw, attempts=1) else _GPU_NOW
        power = shape if answers(shape.read_mw) else None
        return Sensors(Measure.COUNTER, "nvml:total_energy", shape.scope, power)
    for sensor in (_GPU_NOW, _MODULE_NOW, _GPU_MEAN, _GPU_USAGE):
        if answers(sensor.read_mw):
            return Sensors(Measure.GAUGE, sensor.source, sensor.scope, sensor)
    raise min(refusals, key=lambda refusal: isinstance(refusal, Unavailable))


def collector_error(nvml: Any, error: Exception, what: str) -> CollectorError:
    """The binding's error in our terms: refused, never to be had, or failed this time."""
    code = getattr(error, "value", None)
    if code == nvml.NVML_ERROR_NO_PERMISSION:
        return NotPermitted(f"{what}: {error}", remedy=_DENIED)
    if code in {nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND}:
        return Unavailable(f"{what}: {error}", remedy=_NO_SENSOR)
    return ReadFailed(f"{what}: {error}", remedy=_LOST)
