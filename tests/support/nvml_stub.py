"""Puts a compiled stand-in for NVIDIA's driver under the real binding, with known true energy."""

import ctypes
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import pynvml

SOURCE = Path(__file__).with_name("nvml_stub.c")
FOREVER = -1

Script = Sequence[tuple[float, float]]
"""Power as (seconds, watts), linear between the points, constant outside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """How the power sensor of one family of GPUs behaves."""

    architecture: int
    refresh_ms: int
    window_ms: int
    """What POWER_AVERAGE and the legacy power usage are a mean over."""
    observed_ms: int
    """How much of each refresh it sees."""


SENSORS = {
    "Volta": Sensor(
        architecture=pynvml.NVML_DEVICE_ARCH_VOLTA, refresh_ms=20, window_ms=10, observed_ms=10
    ),
    "GA100": Sensor(
        architecture=pynvml.NVML_DEVICE_ARCH_AMPERE, refresh_ms=100, window_ms=25, observed_ms=25
    ),
    "GA10x": Sensor(
        architecture=pynvml.NVML_DEVICE_ARCH_AMPERE, refresh_ms=100, window_ms=1000, observed_ms=100
    ),
    "Ada": Sensor(
        architecture=pynvml.NVML_DEVICE_ARCH_ADA, refresh_ms=100, window_ms=1000, observed_ms=100
    ),
    "Hopper": Sensor(
        architecture=pynvml.NVML_DEVICE_ARCH_HOPPER, refresh_ms=100, window_ms=1000, observed_ms=25
    ),
}
"""As "Part-time power measurements" (SC24) and nvml.h have them."""


class Call(IntEnum):
    """What an error can be injected into; the order is that of the C file."""

    INIT = 0
    COUNT = 1
    HANDLE = 2
    UUID_LOOKUP = 3
    ENERGY = 4
    INSTANT_GPU = 5
    INSTANT_MODULE = 6
    AVERAGE = 7
    USAGE = 8
    LIMIT = 9
    CLOCK = 10
    TEMPERATURE = 11
    UTILISATION = 12
    THROTTLE = 13
    PROCESSES = 14
    ARCHITECTURE = 15
    NAME = 16
    BUSY = 17


def compile_stub(folder: Path) -> Path:
    """Build the library into `folder` (under a second), named as the binding looks for it.

    It has no soname: with one, a later look-up by name in this process would find it loaded.
    """
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", library, SOURCE], check=True)
    return library


def in_real_time(
    library: Path, *scripts: Script, origin_ns: int = 0, processes: Path | None = None
) -> dict[str, str]:
    """The environment in which a new process finds a GPU for each script, in real time.

    Second 0 of a script is `origin_ns` of the monotonic clock. `processes` is a file with a line
    `DEVICE PID BYTES SM_PERCENT` for each process on a GPU; it may change at any time.
    """
    parts = [",".join(f"{seconds}:{watts}" for seconds, watts in script) for script in scripts]
    return {
        "LD_LIBRARY_PATH": str(library.parent),
        "NVML_STUB_SCRIPT": ";".join([str(origin_ns), *parts]),
        **({} if processes is None else {"NVML_STUB_PROCESSES": str(processes)}),
    }


@contextmanager
def installed(library: Path, devices: int = 1) -> Iterator["NvmlStub"]:
    """The stub under `pynvml` with 1 to 8 devices; afterwards the binding is as it was."""
    before = pynvml.nvmlLib
    stub = NvmlStub(ctypes.CDLL(str(library)), devices)
    pynvml.nvmlLib = stub.library
    pynvml._nvmlGetFunctionPointer_cache.clear()
    try:
        yield stub
    finally:
        pynvml.nvmlLib = before
        pynvml._nvmlGetFunctionPointer_cache.clear()


class NvmlStub:
    """1 to 8 GPUs in virtual time, each drawing nothing until scripted."""

    def __init__(self, library: ctypes.CDLL, devices: int) -> None:
        self.library = library
        library.stub_true_energy_uj.restype = ctypes.c_double
        library.stub_calls.restype = ctypes.c_long
        library.stub_reset(devices)
        self._now_ns = 0

    def now_ns(self) -> int:
        """The clock to give to a collector: the stub's own."""
        return self._now_ns

    def set_time_ns(self, now_ns: int) -> None:
        self._now_ns = now_ns
        self.library.stub_set_time_ns(ctypes.c_int64(now_ns))

    def advance(self, seconds: float) -> None:
        self.set_time_ns(self._now_ns + round(seconds * 1e9))

    def sleep(self, seconds: float) -> None:
        """To give to a collector instead of time.sleep."""
        self.advance(seconds)

    def uuid(self, device: int = 0) -> str:
        return f"GPU-{device:08x}-0000-4000-8000-000000000000"

    def script(
        self, points: Script, *, repeat_seconds: float | None = None, device: int = 0
    ) -> None:
        """Power as (seconds, watts), linear between the points, constant outside them.

        With `repeat_seconds` it begins again at second 0 each time so much has passed.
        """
        if repeat_seconds is not None:
            repeat_ns = ctypes.c_int64(round(repeat_seconds * 1e9))
            self.library.stub_repeat_ns(device, repeat_ns)
        for seconds, watts in points:
            self.library.stub_add_point(
                device, ctypes.c_int64(round(seconds * 1e9)), ctypes.c_double(watts * 1_000)
            )

    def true_energy_uj(self, from_ns: int, to_ns: int, *, device: int = 0) -> float:
        """The exact integral of the script."""
        return float(
            self.library.stub_true_energy_uj(device, ctypes.c_int64(from_ns), ctypes.c_int64(to_ns))
        )

    def fail(self, call: Call, code: int, *, count: int = FOREVER, device: int = 0) -> None:
        """Answer the next `count` calls with `code` (pynvml.NVML_ERROR_...)."""
        self.library.stub_set_error(device, int(call), code, count)

    def mend(self, call: Call, *, device: int = 0) -> None:
        self.library.stub_set_error(device, int(call), 0, 0)

    def calls(self, call: Call, *, device: int = 0) -> int:
        """How often it was called."""
        return int(self.library.stub_calls(device, int(call)))

    @property
    def initialised(self) -> int:
        """How many more times it was initialised than shut down."""
        return int(self.library.stub_initialised())

    def hang_until_readable(self, descriptor: int) -> None:
        """Let a read of energy or utilisation last until there is something in it; at most 5 s."""
        self.library.stub_wait_for(descriptor)

    def restart_counter(self, *, device: int = 0) -> None:
        """Let the energy counter begin at 0 again, as a reset of the GPU does."""
        self.library.stub_restart_counter(device)

    def lose_handles(self, *, device: int = 0) -> None:
        """Lose every handle given out so far; a new look-up gives one that works."""
        self.library.stub_lose_handles(device)

    def behave_as(self, sensor: Sensor, *, phase_ms: float = 0, device: int = 0) -> None:
        """Refresh, mean and observe as these GPUs do, refreshes beginning at `phase_ms`."""
        library = self.library
        library.stub_set_architecture(device, sensor.architecture)
        for name, milliseconds in {
            "stub_set_refresh_ns": sensor.refresh_ms,
            "stub_set_window_ns": sensor.window_ms,
            "stub_set_observed_ns": sensor.observed_ms,
            "stub_set_phase_ns": phase_ms,
        }.items():
            getattr(library, name)(device, ctypes.c_int64(round(milliseconds * 1e6)))

    def count_observed(self, *, device: int = 0) -> None:
        """Let the energy counter add up only what the sensor observes of each refresh."""
        self.library.stub_count_observed(device, 1)

    def set_refresh_ns(self, refresh_ns: int, *, device: int = 0) -> None:
        self.library.stub_set_refresh_ns(device, ctypes.c_int64(refresh_ns))

    def set_window_ns(self, window_ns: int, *, device: int = 0) -> None:
        """What POWER_AVERAGE and the legacy power usage average over."""
        self.library.stub_set_window_ns(device, ctypes.c_int64(window_ns))

    def set_limit_watts(self, watts: float, *, device: int = 0) -> None:
        self.library.stub_set_limit_mw(device, round(watts * 1_000))

    def set_architecture(self, architecture: int, *, device: int = 0) -> None:
        self.library.stub_set_architecture(device, architecture)

    def set_throttle_reasons(self, bits: int, *, device: int = 0) -> None:
        self.library.stub_set_throttle(device, ctypes.c_uint64(bits))

    def set_utilisation_percent(self, percent: int, *, device: int = 0) -> None:
        self.library.stub_set_utilisation(device, percent)

    def force_power_watts(self, watts: float, *, device: int = 0) -> None:
        """Show this power whatever the script says; 0: the script's again."""
        self.library.stub_force_power_mw(device, round(watts * 1_000))

    def make_mig_row(self, device: int, *, parent: int) -> None:
        self.library.stub_set_mig_parent(device, parent)

    def add_process(self, pid: int, used_bytes: int, *, instance: int = 0, device: int = 0) -> None:
        self.library.stub_add_process(device, pid, ctypes.c_uint64(used_bytes), instance)

    def set_busy(self, pid: int, percent: int, *, device: int = 0) -> None:
        """Let a process have so much of the SMs from now on."""
        self.library.stub_set_busy(device, pid, percent)

    def clear_processes(self, *, device: int = 0) -> None:
        self.library.stub_clear_processes(device)
