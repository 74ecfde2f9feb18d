"""Every way to ask an NVIDIA GPU for energy, power and what explains them; all of it reads only."""

from collections.abc import Callable
from typing import Any

Ask = Callable[[], int]
SCOPES = ("gpu", "module", "memory", "gpu_base")


def sensors(nvml: Any, handle: Any) -> dict[str, Ask]:
    """Every way to ask for energy (millijoules; named energy...) or power (milliwatts)."""

    def of_field(number: int, scope: int = 0) -> Ask:
        def ask() -> int:
            (entry,) = nvml.nvmlDeviceGetFieldValues(handle, [(number, scope)])
            if entry.nvmlReturn != nvml.NVML_SUCCESS:
                raise nvml.NVMLError(entry.nvmlReturn)
            wide = entry.valueType == nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
            return int(entry.value.ullVal if wide else entry.value.uiVal)

        return ask

    found: dict[str, Ask] = {"energy": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)}
    for name, number in (("instant", 186), ("average", 185)):
        for scope, where in enumerate(SCOPES):
            found[f"{name}:{where}"] = of_field(number, scope)
    found["usage"] = lambda: nvml.nvmlDeviceGetPowerUsage(handle)
    found["energy_field"] = of_field(83)
    return found


def other_questions(nvml: Any, handle: Any) -> dict[str, Callable[[], Any]]:
    """What else tells about the card; none of it changes anything."""
    return {
        "driver": nvml.nvmlSystemGetDriverVersion,
        "nvml": nvml.nvmlSystemGetNVMLVersion,
        "card": lambda: nvml.nvmlDeviceGetName(handle),
        "architecture": lambda: nvml.nvmlDeviceGetArchitecture(handle),
        "power_limit_mw": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle),
        "power_limits_mw": lambda: nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle),
        "sm_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "utilisation_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "throttle_bits": lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        "mig_mode": lambda: nvml.nvmlDeviceGetMigMode(handle),
        "is_mig_instance": lambda: nvml.nvmlDeviceIsMigDeviceHandle(handle).value,
        "persistence_mode": lambda: nvml.nvmlDeviceGetPersistenceMode(handle),
        "memory_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total,
        "processes": lambda: len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        "process_utilisation": lambda: len(nvml.nvmlDeviceGetProcessUtilization(handle, 0)),
        "power_samples": lambda: len(
            nvml.nvmlDeviceGetSamples(handle, nvml.NVML_TOTAL_POWER_SAMPLES, 0)[1]
        ),
    }


def answer_of(ask: Callable[[], Any]) -> dict[str, Any]:
    """What it said, or why it did not: a binding of another version may raise anything."""
    try:
        value = ask()
    except Exception as error:  # noqa: BLE001  no question is worth the others' answers
        return {"error": f"{type(error).__name__}: {error}"}
    return {"value": value.decode() if isinstance(value, bytes) else value}
