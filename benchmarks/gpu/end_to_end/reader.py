"""Reads a GPU's energy counter beside MELODI, in a process of its own: the second opinion.

A line `E WALL_NS MILLIJOULES` for every change of the counter, set midway between two polls;
`P WALL_NS MILLIWATTS` ten times a second; at first
`U UUID` and `L MILLIWATTS`, the power limit.
"""

import sys
import time
from pathlib import Path
from typing import Any, TextIO

POLL_SECONDS = 0.005
POWER_EVERY_NS = 100_000_000


def main(path: Path, device: int) -> None:
    """Write to `path` until it is killed."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(device)
    with path.open("w", buffering=1) as out:
        out.write(f"U {pynvml.nvmlDeviceGetUUID(handle)}\n")
        out.write(f"L {pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)}\n")
        follow(pynvml, handle, out)


def follow(nvml: Any, handle: Any, out: TextIO) -> None:
    """A read that fails is skipped: the counter goes on."""
    last_mj, last_ns, power_at_ns = None, time.time_ns(), 0
    while True:
        try:
            energy_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            now_ns = time.time_ns()
            if energy_mj != last_mj:
                out.write(f"E {(last_ns + now_ns) // 2} {energy_mj}\n")
                last_mj = energy_mj
            last_ns = now_ns
            if now_ns >= power_at_ns:
                out.write(f"P {now_ns} {power_mw(nvml, handle)}\n")
                power_at_ns = now_ns + POWER_EVERY_NS
        except nvml.NVMLError as error:
            sys.stderr.write(f"reader: {error}\n")
        time.sleep(POLL_SECONDS)


def power_mw(nvml: Any, handle: Any) -> int:
    """What nvidia-smi shows as power draw."""
    return int(nvml.nvmlDeviceGetPowerUsage(handle))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
