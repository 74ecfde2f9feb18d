"""Reads the energy and power of NVIDIA GPUs through NVML, and never changes anything on them."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from collectors.base import Conditions, Domain, NowNs, Readings
from collectors.errors import CollectorError, NotPermitted, ReadFailed, Unavailable
from collectors.meters import read_each
from collectors.nvml_gpu import Gpu
from collectors.nvml_sensors import collector_error
from collectors.surroundings import surroundings

_RESTART_AFTER_NS = 30_000_000_000

_NO_DRIVER = (
    "nothing to do without an NVIDIA GPU; with one, install its driver and load it: "
    "nvidia-smi shows whether it runs"
)
_NO_DRIVER_IN_CONTAINER = (
    "nothing to do without an NVIDIA GPU; with one, start the container with --gpus all, which "
    "takes the NVIDIA driver and its container toolkit on the host"
)
_MISMATCH = "the driver was updated and the old one is still loaded: reload its modules or reboot"


class NvmlCollector:
    """Every GPU that gave a real energy or power value when this was opened; held until `close`.

    Raises Unavailable where there is no driver or no GPU with a sensor, NotPermitted where this
    process may not read, ReadFailed where GPUs exist and all fail.
    """

    def __init__(self, *, now_ns: NowNs, sleep: Callable[[float], None] = time.sleep) -> None:
        import pynvml

        self._nvml: Any = pynvml
        self._now_ns = now_ns
        self._all_lost_since_ns: int | None = None
        count = _start(pynvml)
        self._is_open = True
        try:
            self._gpus, errors = _open_gpus(pynvml, count, now_ns, sleep)
            if not self._gpus:
                raise _first(errors)
        except CollectorError:
            self.close()
            raise
        self.unproven = tuple(errors)
        """Why GPUs that exist are not among the domains."""

    @property
    def name(self) -> str:
        return "nvml"

    @property
    def domains(self) -> tuple[Domain, ...]:
        """As of now: `max_power_watts` follows the power limit that `conditions` saw last."""
        return tuple(gpu.domain for gpu in self._gpus)

    def read(self) -> Readings:
        try:
            readings = read_each(self._gpus)
        except ReadFailed:
            self._restart_when_due()
            raise
        self._all_lost_since_ns = None
        return readings

    def conditions(self) -> tuple[Conditions, ...]:
        found = (gpu.conditions() for gpu in self._gpus)
        return tuple(conditions for conditions in found if conditions is not None)

    def running_processes(self) -> dict[str, dict[int, int | None]]:
        found = ((gpu.domain.name, gpu.running_processes()) for gpu in self._gpus)
        return {name: processes for name, processes in found if processes is not None}

    def busy_processes(self) -> dict[str, dict[int, int]]:
        found = ((gpu.domain.name, gpu.busy_processes()) for gpu in self._gpus)
        return {name: processes for name, processes in found if processes is not None}

    def close(self) -> None:
        # NVML counts who opened it: once too often would shut it for another one of us.
        if not self._is_open:
            return
        self._is_open = False
        with contextlib.suppress(self._nvml.NVMLError):  # the driver may be gone before us
            self._nvml.nvmlShutdown()

    def _restart_when_due(self) -> None:
        """Shut NVML down and open it again: the last resort, once every GPU has long been lost."""
        if not all(gpu.is_lost for gpu in self._gpus):
            self._all_lost_since_ns = None
            return
        now_ns = self._now_ns()
        if self._all_lost_since_ns is None:
            self._all_lost_since_ns = now_ns
        elif now_ns - self._all_lost_since_ns >= _RESTART_AFTER_NS:
            self._all_lost_since_ns = now_ns
            self.close()
            try:
                _start(self._nvml)
            except CollectorError as error:
                raise ReadFailed(error.reason, remedy=error.remedy) from error
            self._is_open = True


def _start(nvml: Any) -> int:
    """Open NVML, and give how many devices it lists."""
    try:
        nvml.nvmlInit()
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NO_PERMISSION:
            raise collector_error(nvml, error, "NVML") from error
        mismatch = error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
        remedy = _MISMATCH if mismatch else _no_driver()
        raise Unavailable(f"NVML: {error}", remedy=remedy) from error


def _open_gpus(
    nvml: Any, count: int, now_ns: NowNs, sleep: Callable[[float], None]
) -> tuple[tuple[Gpu, ...], list[CollectorError]]:
    """The GPUs that can be read, each once, and what the others said."""
    gpus: dict[str, Gpu] = {}
    errors: list[CollectorError] = []
    for index in range(count):
        try:
            handle = _whole_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
            gpu = Gpu(nvml, handle, now_ns=now_ns, sleep=sleep)
            gpus[gpu.uuid] = gpu
        except nvml.NVMLError as error:
            errors.append(collector_error(nvml, error, f"GPU {index}"))
        except CollectorError as error:
            errors.append(error)
    return tuple(gpus.values()), errors


def _whole_gpu(nvml: Any, handle: Any) -> Any:
    """The GPU that `handle` is a MIG instance of: power and energy exist only for the whole."""
    try:
        if nvml.nvmlDeviceIsMigDeviceHandle(handle).value:
            return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    except nvml.NVMLError_FunctionNotFound:  # a driver older than MIG
        pass
    return handle


def _no_driver() -> str:
    return _NO_DRIVER_IN_CONTAINER if surroundings().container else _NO_DRIVER


def _first(errors: list[CollectorError]) -> CollectorError:
    """What to say where no GPU can be read: first what granting access would mend."""
    if not errors:
        return Unavailable("NVML runs and sees no GPU", remedy=_no_driver())
    return min(errors, key=lambda error: not isinstance(error, NotPermitted))
