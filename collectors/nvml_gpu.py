"""One NVIDIA GPU, held open: its readings, its conditions, and finding it again when lost."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from collectors.base import Conditions, Domain, Kind, Measure, NowNs, Reading
from collectors.errors import ReadFailed
from collectors.nvml_sensors import PATIENCE, choose_sensors, read_energy_mj

_FIRST_RETRY_NS = 1_000_000_000
_LAST_RETRY_NS = 60_000_000_000
_POWER_MARGIN = 1.1
_IMPLAUSIBLE = 1.5
_REMEDY = "the GPU is looked for again by itself; if it stays away, reset it or reboot the host"

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


class Gpu:
    """One GPU, proven by a successful read.

    Constructing one raises the binding's own errors, or those of `choose_sensors`.
    """

    def __init__(
        self, nvml: Any, handle: Any, *, now_ns: NowNs, sleep: Callable[[float], None]
    ) -> None:
        self._nvml = nvml
        self._handle: Any = handle
        self._now_ns = now_ns
        self.uuid: str = nvml.nvmlDeviceGetUUID(handle)
        self._sensors = choose_sensors(nvml, handle, sleep)
        self._power = self._sensors.power
        self._limit_mw: int | None = self._answer("nvmlDeviceGetEnforcedPowerLimit")
        self._failed_in_a_row = 0
        self._power_failed_in_a_row = 0
        self._retry_after_ns = _FIRST_RETRY_NS
        self._retry_at_ns = 0
        self.domain = Domain(
            name=f"gpu:{self.uuid}",
            kind=Kind.GPU,
            scope=self._sensors.scope,
            source=self._sensors.source,
            measure=self._sensors.measure,
            refresh_ns=self._refresh_ns(),
            max_power_watts=self._max_power_watts(),
            description=self._answer("nvmlDeviceGetName") or "",
        )

    @property
    def is_lost(self) -> bool:
        return self._handle is None

    def read(self) -> Reading:
        """Energy with the shape of power where there is a counter, else power; or ReadFailed."""
        if self._handle is None:
            self._find_again()
        before_ns = self._now_ns()
        try:
            value = self._main_value()
        except self._nvml.NVMLError as error:
            raise self._failed(error) from error
        self._failed_in_a_row = 0
        half_width_ns = (self._now_ns() - before_ns) // 2
        at_ns = before_ns + half_width_ns
        if self.domain.measure is Measure.COUNTER:
            return Reading(self.domain.name, at_ns, half_width_ns, value * 1_000, self._shape_uw())
        if self._is_implausible(value):
            reason = f"{value / 1_000:g} W cannot be true of this GPU"
            raise ReadFailed(f"{self.domain.name}: {reason}", remedy=_REMEDY)
        return Reading(self.domain.name, at_ns, half_width_ns, power_uw=value * 1_000)

    def conditions(self) -> Conditions | None:
        """Clocks, limits and the like, None where it does not tell; None while it is lost."""
        if self._handle is None:
            return None
        nvml, ask = self._nvml, self._answer
        utilisation = ask("nvmlDeviceGetUtilizationRates")
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        self._renew_limit()
        return Conditions(
            domain=self.domain.name,
            at_ns=self._now_ns(),
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            memory_clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            power_limit_watts=None if self._limit_mw is None else self._limit_mw / 1_000,
            temperature_celsius=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            utilisation_ratio=None if utilisation is None else utilisation.gpu / 100,
            throttle_reasons=tuple(
                name for bit, name in _THROTTLE_REASONS.items() if reasons & bit
            ),
        )

    def running_processes(self) -> dict[int, int | None] | None:
        """Bytes of GPU memory by pid of the host (None: not told); None where it cannot say."""
        entries = None if self._handle is None else self._answer(_PROCESSES)
        if entries is None:
            return None
        used: dict[int, int | None] = {}
        for entry in entries:
            # A process on several MIG instances has an entry for each.
            told = (used.get(entry.pid), entry.usedGpuMemory)
            used[entry.pid] = sum(filter(None, told)) if any(told) else entry.usedGpuMemory
        return used

    def _main_value(self) -> int:
        """Millijoules of the counter, or milliwatts where there is none."""
        if self._sensors.measure is Measure.COUNTER or self._power is None:
            return read_energy_mj(self._nvml, self._handle)
        return self._power.read_mw(self._nvml, self._handle)

    def _shape_uw(self) -> int | None:
        """Power beside the counter; not asked for any more once it has long been refused."""
        if self._power is None:
            return None
        try:
            power_mw = self._power.read_mw(self._nvml, self._handle)
        except self._nvml.NVMLError:  # the energy, which counts, was read all the same
            self._power_failed_in_a_row += 1
            if self._power_failed_in_a_row >= PATIENCE:
                self._power = None
            return None
        self._power_failed_in_a_row = 0
        return None if self._is_implausible(power_mw) else power_mw * 1_000

    def _is_implausible(self, power_mw: int) -> bool:
        return self._limit_mw is not None and power_mw > _IMPLAUSIBLE * self._limit_mw

    def _failed(self, error: Exception) -> ReadFailed:
        """What to raise for `error`; lets go of a handle that is dead or fails on and on."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= PATIENCE or getattr(error, "value", None) in self._deadly():
            self._handle = None
            self._retry_at_ns = self._now_ns() + self._retry_after_ns
        return ReadFailed(f"{self.domain.name}: {error}", remedy=_REMEDY)

    def _find_again(self) -> None:
        """Look the GPU up by UUID and prove it; raises ReadFailed, at first each second."""
        now_ns = self._now_ns()
        if now_ns < self._retry_at_ns:
            raise ReadFailed(f"{self.domain.name} is lost", remedy=_REMEDY)
        try:
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(self.uuid)
            self._main_value()
        except self._nvml.NVMLError as error:
            self._handle = None
            self._retry_after_ns = min(2 * self._retry_after_ns, _LAST_RETRY_NS)
            self._retry_at_ns = now_ns + self._retry_after_ns
            raise ReadFailed(f"{self.domain.name} is lost: {error}", remedy=_REMEDY) from error
        self._retry_after_ns = _FIRST_RETRY_NS
        self._power = self._sensors.power
