"""One daemon under load that samples the world; prints what that cost and what it saw as JSON.

python -m benchmarks.sampler.subject ROOT ORIGIN_NS SECONDS GPU_HERTZ CPU_HERTZ MODE FOLDER
"""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pynvml

from benchmarks.sampler import bare
from benchmarks.sampler.world import STILL_SECONDS, WAVE_SECONDS, ZONES, sleep_until
from melodi.clock import SystemClock
from melodi.config import Api, BackendSettings, Collectors, Database, Sampling, Settings
from melodi.daemon.serve import Served, served
from melodi.sampling.reader import Pass
from melodi.sampling.station import Station
from melodi.serving import run, spare_what_stays

READING = ("melodi-nvml", "melodi-rapl", "melodi-meters")
"""The threads that sample, in either mode."""
LOOKING = "melodi-watch"
"""The thread that looks for new meters: often at first, once a minute at rest."""
LATENESS: list[tuple[int, int]] = []
"""When a beat was told of, and how late it was, in ns."""
FEEDING: dict[int, int] = {}
"""CPU time that feeding curves took of each thread that does not sample, in ns, by its ident."""


def counters(root: Path) -> dict[str, int]:
    """What all counters show now, in microjoules, read beside MELODI."""
    folder = root / "class/powercap"
    names = ("package:0", "dram:0", "package:1", "dram:1")
    shown = {
        name: int((folder / zone / "energy_uj").read_text())
        for name, zone in zip(names, ZONES, strict=True)
    }
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        energy_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        shown[f"gpu:{pynvml.nvmlDeviceGetUUID(handle)}"] = energy_mj * 1_000
    return shown


def cpu_ns() -> dict[str, int]:
    """CPU time of each thread that samples, of the bare loop's, and of who looks for meters."""
    return {
        one.name: time.clock_gettime_ns(time.pthread_getcpuclockid(one.ident))
        for one in threading.enumerate()
        if one.name in (*READING, *bare.NAMES, LOOKING) and one.ident is not None
    }


def watch_lateness() -> None:
    """Note how late each beat was."""
    take = Station.take

    def noting(self: Station, one: Pass) -> None:
        LATENESS.append((time.monotonic_ns(), one.late_ns))
        take(self, one)

    Station.take = noting  # type: ignore[method-assign]


def watch_feeding() -> None:
    """Note what feeding takes of other threads than those that sample."""
    feed = Station.feed

    def noting(self: Station) -> None:
        thread = threading.current_thread()
        began_ns = time.thread_time_ns()
        feed(self)
        if thread.name not in READING:
            took_ns = time.thread_time_ns() - began_ns
            FEEDING[threading.get_ident()] = FEEDING.get(threading.get_ident(), 0) + took_ns

    Station.feed = noting  # type: ignore[method-assign]


def percentile(values: list[int], part: float) -> float:
    """Nearest rank, in ms."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] / 1e6


async def measure(daemon: Served, root: Path, origin_ns: int, seconds: float) -> dict[str, Any]:
    """Look before, during and after the wave."""
    await asyncio.to_thread(sleep_until, origin_ns, STILL_SECONDS)
    before = counters(root)
    curves = daemon.runtime.sampler.curves
    totals = {name: curve.edges[-1].total_uj for name, curve in curves.items()}
    await asyncio.to_thread(sleep_until, origin_ns, WAVE_SECONDS)
    sampler, threads, began_ns = daemon.runtime.sampler, cpu_ns(), time.monotonic_ns()
    feeding_ns = sum(FEEDING.values())
    others, process, traffic = sampler.cpu_seconds, time.process_time(), daemon.runtime.traffic
    passing = traffic.used.cpu_seconds
    await asyncio.to_thread(sleep_until, origin_ns, WAVE_SECONDS + seconds)
    ended_ns = time.monotonic_ns()
    spent = {name: ns - threads[name] for name, ns in cpu_ns().items()}
    looking_ns = spent.pop(LOOKING, 0)
    feeding_ns = sum(FEEDING.values()) - feeding_ns
    bare_ns = sum(spent.pop(name, 0) for name in bare.NAMES)
    others, process = sampler.cpu_seconds - others, time.process_time() - process
    passing = traffic.used.cpu_seconds - passing
    await asyncio.sleep(1.5)
    after = counters(root)
    lost = {
        name: after[name] - before[name] - (curves[name].edges[-1].total_uj - totals[name])
        for name in after
    }
    late = [ns for at_ns, ns in LATENESS if began_ns <= at_ns <= ended_ns]
    length = (ended_ns - began_ns) / 1e9
    return {
        "beats": len(late),
        "looking_ms": looking_ns / 1e6,
        "sampling_ratio": sum(spent.values()) / 1e9 / length,
        "feeding_ratio": feeding_ns / 1e9 / length,
        "bare_ratio": bare_ns / 1e9 / length,
        "child_ratio": others / length,
        "process_ratio": (process + passing) / length,
        "late_p50_ms": percentile(late, 0.5),
        "late_p99_ms": percentile(late, 0.99),
        "lost_uj": lost,
        "measured_uj": sum(after.values()) - sum(before.values()),
        "faults": daemon.runtime.faults(),
    }


async def main() -> None:
    root, folder = Path(sys.argv[1]), Path(sys.argv[7])
    origin_ns, seconds = int(sys.argv[2]), float(sys.argv[3])
    gpu_period, cpu_period = (f"{1000 / float(hertz):g}ms" for hertz in sys.argv[4:6])
    port = free_port()
    settings = Settings(
        host="benchmark",
        api=Api(listen="127.0.0.1:0"),
        database=Database(url=f"sqlite:///{folder / 'melodi.db'}"),
        sampling=Sampling(
            nvml_period=gpu_period, rapl_period=cpu_period, process=sys.argv[6] == "process"
        ),
        collectors=Collectors(use=["nvml", "rapl"], sysfs_root=root),
        backends=[
            BackendSettings(
                name="b", kind="vllm", url=f"http://127.0.0.1:{port}", listen="127.0.0.1:0"
            )
        ],
    )
    watch_lateness()
    watch_feeding()
    pynvml.nvmlInit()
    load = load_on(port)
    assert load.stdin is not None
    assert load.stdout is not None
    await asyncio.to_thread(load.stdout.readline)
    async with served(settings, clock=SystemClock()) as daemon:
        spare_what_stays()  # as `melodi serve` does
        if not settings.sampling.process:
            bare.start(root, *map(float, sys.argv[4:6]))
        load.stdin.write(f"{daemon.gateway_urls['b']} {daemon.api_url}\n")
        load.stdin.flush()
        began = time.monotonic()
        figures = await measure(daemon, root, origin_ns, seconds)
        load.stdin.close()
        answers = int(await asyncio.to_thread(load.stdout.readline))
        figures["requests_per_second"] = answers / (time.monotonic() - began)
    load.wait()
    print(json.dumps(figures), flush=True)


def load_on(port: int) -> "subprocess.Popen[str]":
    """The backend on that port, with the clients that wait to be told whom to ask."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sampler.load", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    run(main())
