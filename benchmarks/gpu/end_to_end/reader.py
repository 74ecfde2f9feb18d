"""Reads a GPU's energy counter beside MELODI, in a process of its own: the second opinion.

A line `E WALL_NS MILLIJOULES` for every change of the counter, set midway between two polls;
`P WALL_NS MILLIWATTS` ten times a second; at first
`U UUID` and `L MILLIWATTS`, the power limit.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from benchmarks.gpu.probe.card import bus_id_of, card_at

POLL_SECONDS = 0.005
POWER_EVERY_NS = 100_000_000


def main(path: Path, device: str) -> None:
    """Write to `path` until it is killed, of the card that torch calls `device`."""
    import pynvml

    pynvml.nvmlInit()
    card = card_at(pynvml, partial(bus_id_of, device))
    if card.doubt is not None:
        sys.exit(f"the server may run on another card: {card.doubt}; show this process only one")
    with path.open("w", buffering=1) as out:
        out.write(f"U {card.uuid}\n")
        out.write(f"L {pynvml.nvmlDeviceGetEnforcedPowerLimit(card.handle)}\n")
        follow(pynvml, card.handle, out)


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
    main(Path(sys.argv[1]), sys.argv[2])
