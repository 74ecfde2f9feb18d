"""One NVIDIA GPU, held open: its readings, its conditions, and finding it again when lost."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from collectors.base import Conditions, Domain, Kind, Measure, NowNs, Reading
from collectors.errors import ReadFailed
from collectors.frozen import Stillness
from collectors.meters import Told
from collectors.nvml_conditions import ConditionSensors
from collectors.nvml_processes import BusyProcesses, memory_by_pid
from collectors.nvml_sensors import LOST_REMEDY, PATIENCE, choose_sensors
from collectors.nvml_timing import refresh_and_lag_ns

_FIRST_RETRY_NS = 1_000_000_000
_LAST_RETRY_NS = 60_000_000_000
_POWER_MARGIN = 1.1
_IMPLAUSIBLE = 1.5
_STILL_NS = 2_000_000_000
_FROZEN = "shows the same value over and over while its utilisation moves: the sensor is stuck"
_STUCK = "counts no energy though the GPU draws power: its counter is stuck"
_FROZEN_REMEDY = "it counts again once the value moves; if it stays stuck, reset the GPU"


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
        self._counts = self._sensors.measure is Measure.COUNTER
        self._read = self._sensors.of(nvml, handle)
        self._failed_in_a_row = 0
        self._retry_after_ns = _FIRST_RETRY_NS
        self._retry_at_ns = 0
        self._limit_watts: float | None = None
        self._condition_sensors = ConditionSensors(nvml, handle)
        self._stillness = Stillness()
        self._value: int | None = None
        self._moved_ns = 0
        self._busy = BusyProcesses()
        architecture = self._answer("nvmlDeviceGetArchitecture")
        refresh_ns, lag_ns = refresh_and_lag_ns(nvml, architecture, self._sensors)
        self.domain = Domain(
            name=f"gpu:{self.uuid}",
            kind=Kind.GPU,
            scope=self._sensors.scope,
            source=self._sensors.source,
            measure=self._sensors.measure,
            refresh_ns=refresh_ns,
            lag_ns=lag_ns,
            description=self._answer("nvmlDeviceGetName") or "",
        )
        self._follow_limit(self._condition_sensors.limit_watts())

    @property
    def is_lost(self) -> bool:
        return self._handle is None

    def ask(self) -> Told | ReadFailed:
        """Ask the driver, once the GPU is found again where it was lost."""
        try:
            if self._handle is None:
                self._find_again()
            before_ns = self._now_ns()
            value = self._read()
            after_ns = self._now_ns()
            self._failed_in_a_row = 0
            if value != self._value:
                self._value, self._moved_ns = value, after_ns
            elif after_ns - self._moved_ns >= _STILL_NS:
                self._doubt()
            if not self._counts:
                self._check_plausible(value)
        except ReadFailed as error:
            return error
        except self._nvml.NVMLError as error:
            return self._failed(error)
        return before_ns, value, after_ns

    def reading(self, told: Told) -> Reading:
        """Energy where there is a counter, else power."""
        before_ns, value, after_ns = told
        half_width_ns = (after_ns - before_ns) // 2
        at_ns = before_ns + half_width_ns
        if self._counts:
            return Reading(self.domain.name, at_ns, half_width_ns, value * 1_000)
        return Reading(self.domain.name, at_ns, half_width_ns, None, value * 1_000)

    def conditions(self) -> Conditions | None:
        """Clocks, limits and the like, None where it does not tell; None while it is lost."""
        if self._handle is None:
            return None
        found = self._condition_sensors.read(self.domain.name, self._now_ns())
        if found.utilisation_ratio is not None:
            self._stillness.see_utilisation(found.utilisation_ratio, self._moved_ns)
        self._follow_limit(found.power_limit_watts)
        return found

    def running_processes(self) -> dict[int, int | None] | None:
        """Bytes of GPU memory by pid of the host (None: not told); None where it cannot say."""
        entries = self._answer("nvmlDeviceGetComputeRunningProcesses")
        return None if entries is None else memory_by_pid(entries)

    def busy_processes(self) -> dict[int, int] | None:
        """SM time by pid since the last call, in parts; None where it cannot say."""
        handle = self._handle  # the sampler's thread may lose it meanwhile
        return None if handle is None else self._busy.read(self._nvml, handle)

    def _doubt(self) -> None:
        """Raise ReadFailed where a value that has not moved for long is no reading."""
        if self._stillness.is_doubtful(self._moved_ns):
            raise ReadFailed(f"{self.domain.name} {_FROZEN}", remedy=_FROZEN_REMEDY)
        if self._counts and self._draws_power():
            raise ReadFailed(f"{self.domain.name} {_STUCK}", remedy=_FROZEN_REMEDY)

    def _draws_power(self) -> bool:
        """Whether it surely does."""
        if self._sensors.read_power_mw is None:
            return False
        try:
            return self._sensors.read_power_mw(self._nvml, self._handle) > 0
        except self._nvml.NVMLError:  # nobody knows, and the counter did answer
            return False

    def _check_plausible(self, power_mw: int) -> None:
        """Raise ReadFailed where the power is more than the GPU can draw."""
        watts, limit_watts = power_mw / 1_000, self._limit_watts
        if limit_watts is not None and watts > _IMPLAUSIBLE * limit_watts:
            raise ReadFailed(f"{self.domain.name}: {watts:g} W is far above its limit")

    def _failed(self, error: Exception) -> ReadFailed:
        """What to give for `error`; lets go of a handle that is dead or fails on and on."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= PATIENCE or getattr(error, "value", None) in _dead_codes(
            self._nvml
        ):
            self._handle = None
            self._retry_at_ns = self._now_ns() + self._retry_after_ns
        return ReadFailed(f"{self.domain.name}: {error}", remedy=LOST_REMEDY)

    def _find_again(self) -> None:
        """Look the GPU up by UUID and prove it; raises ReadFailed, at first each second."""
        now_ns = self._now_ns()
        if now_ns < self._retry_at_ns:
            raise ReadFailed(f"{self.domain.name} is lost", remedy=LOST_REMEDY)
        try:
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(self.uuid)
            self._read = self._sensors.of(self._nvml, self._handle)
            self._condition_sensors = ConditionSensors(self._nvml, self._handle)
            self._read()
        except self._nvml.NVMLError as error:
            self._handle = None
            self._retry_after_ns = min(2 * self._retry_after_ns, _LAST_RETRY_NS)
            self._retry_at_ns = now_ns + self._retry_after_ns
            raise ReadFailed(f"{self.domain.name} is lost: {error}", remedy=LOST_REMEDY) from error
        self._retry_after_ns = _FIRST_RETRY_NS
        self._failed_in_a_row = 0
        self._value = None

    def _follow_limit(self, watts: float | None) -> None:
        """Administrators move the limit at run time, and what is plausible moves with it."""
        if watts is not None and watts != self._limit_watts:
            self.domain = replace(self.domain, max_power_watts=_POWER_MARGIN * watts)
        self._limit_watts = watts

    def _answer(self, function: str, *args: object) -> Any | None:
        """What the binding says; None where this GPU or this driver does not tell."""
        handle = self._handle
        if handle is None:
            return None
        try:
            return getattr(self._nvml, function)(handle, *args)
        except self._nvml.NVMLError:
            return None


def _dead_codes(nvml: Any) -> set[int]:
    """Errors after which a handle never works again."""
    return {
        nvml.NVML_ERROR_UNINITIALIZED,
        nvml.NVML_ERROR_GPU_IS_LOST,
        nvml.NVML_ERROR_RESET_REQUIRED,
        nvml.NVML_ERROR_UNKNOWN,
    }
