"""The same reads and nothing else: what sampling would cost where nothing became of its values."""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pynvml

from benchmarks.sampler.world import GPUS, ZONES

NAMES = ("bare-nvml", "bare-rapl")


def read_gpus() -> Callable[[], None]:
    """Asks the driver for each GPU's energy, by arguments made beforehand."""
    ask = pynvml.nvmlLib.nvmlDeviceGetTotalEnergyConsumption
    handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(GPUS))
    places = [(ctypes.byref(one.contents), ctypes.byref(ctypes.c_uint64())) for one in handles]

    def read() -> None:
        for device, energy_mj in places:
            ask(device, energy_mj)

    return read


def read_zones(root: Path) -> Callable[[], None]:
    """Reads the files of all zones, kept open."""
    paths = (root / "class/powercap" / zone / "energy_uj" for zone in ZONES)
    files = [os.open(path, os.O_RDONLY) for path in paths]

    def read() -> None:
        for file in files:
            int(os.pread(file, 32, 0))

    return read


def start(root: Path, gpu_hertz: float, cpu_hertz: float) -> None:
    """Read in two threads, as often as MELODI does, until the process ends."""
    for name, read, hertz in zip(
        NAMES, (read_gpus(), read_zones(root)), (gpu_hertz, cpu_hertz), strict=True
    ):
        threading.Thread(target=_beat, args=[read, 1 / hertz], name=name, daemon=True).start()


def _beat(read: Callable[[], None], period: float) -> None:
    waiting = threading.Lock()
    waiting.acquire()
    due = time.monotonic() + period / 2
    while True:
        waiting.acquire(timeout=max(0.0, due - time.monotonic()))
        read()
        due += period
