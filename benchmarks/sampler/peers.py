"""CodeCarbon or Zeus over the same world, in an environment of its own (stdlib and the peer only).

python peers.py PEER ORIGIN_NS SECONDS FOLDER; prints what it cost and what it said as JSON.
"""

import importlib.metadata
import json
import logging
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
from world import WAVE_SECONDS, sleep_until

JOULES_PER_KWH = 3.6e6
TOLD = {
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 << 30, free=40 << 30, used=40 << 30),
    "nvmlDeviceGetComputeMode": 0,
    "nvmlDeviceGetGraphicsRunningProcesses": [],
}
"""What a peer asks of each GPU beside energy, and the stand-in for the driver does not know."""


def cpu_seconds() -> float:
    """Of this process and of the processes below it that live."""
    ticks, below = 0, [os.getpid()]
    while below:
        pid = below.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        below += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")


def counted_joules() -> float:
    """What the GPUs' counters show."""
    handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
    return sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(one) for one in handles) / 1e3


class CodeCarbon:
    """A tracker that measures every so many seconds."""

    distribution = "codecarbon"

    def __init__(self, folder: Path, period: float) -> None:
        from codecarbon import OfflineEmissionsTracker

        self._tracker = OfflineEmissionsTracker(
            country_iso_code="DEU",
            measure_power_secs=period,
            output_dir=str(folder),
            save_to_file=False,
            log_level="critical",
            allow_multiple_runs=True,
        )

    def begin(self) -> None:
        self._tracker.start()

    def end(self) -> float:
        self._tracker.stop()
        return float(self._tracker.final_emissions_data.gpu_energy) * JOULES_PER_KWH


class ZeusWindow:
    """A window between two readings of the counters; nothing is read in between."""

    distribution = "zeus"

    def __init__(self, _folder: Path, _period: float) -> None:
        from zeus.monitor import ZeusMonitor

        self._monitor = ZeusMonitor(approx_instant_energy=False)

    def begin(self) -> None:
        self._monitor.begin_window("wave", sync_execution=False)

    def end(self) -> float:
        found = self._monitor.end_window("wave", sync_execution=False)
        return float(sum(found.gpu_energy.values()))


class ZeusPower:
    """Power polled so often in a process of its own, and integrated."""

    distribution = "zeus"

    def __init__(self, _folder: Path, period: float) -> None:
        from zeus.monitor.power import PowerMonitor

        self._monitor = PowerMonitor(update_period=period, power_domains=["device_instant"])

    def begin(self) -> None:
        self._began = time.time()

    def end(self) -> float:
        found = self._monitor.get_energy(self._began, time.time())
        self._monitor.stop()
        if found is None:
            raise RuntimeError("it has no energy of that time")
        return float(sum(found.values()))


PEERS: dict[str, tuple[Any, float, float]] = {
    "CodeCarbon, every second": (CodeCarbon, 1.0, 0.0),
    "CodeCarbon, 20 Hz asked for": (CodeCarbon, 0.05, 0.0),
    "Zeus, one window": (ZeusWindow, 0.0, 0.0),
    "Zeus, power at 20 Hz": (ZeusPower, 0.05, 60.0),
}
"""Each with its period in seconds, and the watts at rest; a power of 0 counts as no reading."""


def main() -> None:
    name, origin_ns, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    make, period, _ = PEERS[name]
    logging.disable(logging.CRITICAL)
    pynvml.nvmlInit()
    for function, answer in TOLD.items():
        setattr(pynvml, function, lambda *_, answer=answer: answer)
    peer = make(Path(sys.argv[4]), period)
    sleep_until(origin_ns, 0.0)
    before = counted_joules()
    peer.begin()
    sleep_until(origin_ns, WAVE_SECONDS)
    spent = cpu_seconds()
    sleep_until(origin_ns, WAVE_SECONDS + seconds)
    spent = cpu_seconds() - spent
    sleep_until(origin_ns, WAVE_SECONDS + seconds + 0.5)
    said = peer.end()
    true = counted_joules() - before
    figures = {
        "version": importlib.metadata.version(make.distribution),
        "cpu_ratio": spent / seconds,
        "error_ratio": said / true - 1,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
