"""Which processes are on an NVIDIA GPU, and how much of its time each had."""

from collections.abc import Iterable
from typing import Any, Protocol

from collectors.base import Collector
from collectors.overlap import opened


class GpuProcesses(Protocol):
    """A meter that also knows who is on its GPUs; keyed by domain, then by pid of the host.

    A GPU that cannot say is left out; one that nobody uses has an empty entry.
    """

    def running_processes(self) -> dict[str, dict[int, int | None]]:
        """Bytes of GPU memory of each compute process; None: not told."""
        ...

    def busy_processes(self) -> dict[str, dict[int, int]]:
        """How much each process had the GPU's SMs since this was last asked; only ratios count."""
        ...


def gpu_processes(collectors: Iterable[Collector]) -> GpuProcesses | None:
    """The first of these meters that knows who is on its GPUs."""
    for one in collectors:
        inner: Any = opened(one)
        if hasattr(inner, "running_processes") and hasattr(inner, "busy_processes"):
            found: GpuProcesses = inner
            return found
    return None


def memory_by_pid(entries: Iterable[Any]) -> dict[int, int | None]:
    """Bytes by pid; a process on several MIG instances has an entry for each."""
    used: dict[int, int | None] = {}
    for entry in entries:
        told = (used.get(entry.pid), entry.usedGpuMemory)
        used[entry.pid] = sum(filter(None, told)) if any(told) else entry.usedGpuMemory
    return used


class BusyProcesses:
    """Reads the utilisation of processes, each sample of the driver once."""

    def __init__(self) -> None:
        self._seen_us = 0

    def read(self, nvml: Any, handle: Any) -> dict[int, int] | None:
        """Percents of SM time by pid, summed over samples; None where this GPU does not tell.

        The binding raises "Success" or NotFound where nothing is new: nobody was busy.
        """
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, self._seen_us)
        except nvml.NVMLError as error:
            quiet = error.value in (nvml.NVML_SUCCESS, nvml.NVML_ERROR_NOT_FOUND)
            return {} if quiet else None
        busy: dict[int, int] = {}
        new = [one for one in samples if one.timeStamp > self._seen_us]
        for one in new:
            self._seen_us = max(self._seen_us, one.timeStamp)
            if one.smUtil:
                busy[one.pid] = busy.get(one.pid, 0) + one.smUtil
        return busy
