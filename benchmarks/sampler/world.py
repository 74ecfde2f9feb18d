"""A host of eight GPUs and four RAPL zones that plays one script in real time (stdlib only).

Second 0 is `origin_ns` of the monotonic clock. All counters make one small step at second 0, so
that whoever watches has seen them move, then stand still; they draw a wave from WAVE_SECONDS on,
for as long as is asked for, and stand still again, so that every reader can tell what they
counted in the wave to the unit. `python world.py ROOT ORIGIN_NS SECONDS` writes the zones.
"""

import os
import sys
import time
from pathlib import Path

GPUS = 8
ZONES = ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0")
NAMES = ("package-0", "dram", "package-1", "dram")
ZONE_WATTS = (250.0, 40.0, 230.0, 35.0)
STILL_SECONDS = 1.5
"""Between the step and the wave: time to look at the counters."""
WAVE_SECONDS = 3.0
HALF_PERIOD_SECONDS = 0.35
LOW_WATTS, HIGH_WATTS = 90.0, 620.0
EDGE_SECONDS = 0.001
TOO_LATE = 75
"""Exit code of who was not ready when the script began."""
_WRITE_SECONDS = 0.005


def gpu_script(
    number: int, seconds: float, *, still_watts: float = 0.0
) -> list[tuple[float, float]]:
    """Power as (seconds, watts), linear in between: the step of 0.2 J, then a square wave."""
    rest = still_watts
    points = [(0.0, rest), (0.02, rest + 20.0), (0.03, rest), (0.05, rest)]
    at, high = WAVE_SECONDS, False
    end = WAVE_SECONDS + seconds
    points.append((at, rest))
    while at < end:
        watts = (HIGH_WATTS if high else LOW_WATTS) + number
        until = min(at + HALF_PERIOD_SECONDS, end)
        points += [(at + EDGE_SECONDS, watts), (until, watts)]
        at, high = until, not high
    return [*points, (end + EDGE_SECONDS, rest)]


def sleep_until(origin_ns: int, second: float) -> None:
    """Until that second of the script; ends the process with TOO_LATE where it has passed."""
    left = (origin_ns - time.monotonic_ns()) / 1e9 + second
    if left < 0:
        os._exit(TOO_LATE)  # from whichever thread
    time.sleep(left)


def write_zones(root: Path, origin_ns: int, seconds: float) -> None:
    """Let the zones' counters play the script."""
    folder = root / "devices/virtual/powercap/intel-rapl"
    paths = (folder.joinpath(*_folders(zone), "energy_uj") for zone in ZONES)
    files = [os.open(path, os.O_WRONLY) for path in paths]
    while (second := (time.monotonic_ns() - origin_ns) / 1e9) < WAVE_SECONDS + seconds + 60:
        passed = min(max(0.0, second - WAVE_SECONDS), seconds)
        for file, watts in zip(files, ZONE_WATTS, strict=True):
            step = 2_000_000 if second >= 0 else 0
            # One write of one length: whoever reads meanwhile sees a whole number.
            os.pwrite(file, b"%020d\n" % (step + round(watts * passed * 1e6)), 0)
        time.sleep(_WRITE_SECONDS)


def _folders(zone: str) -> list[str]:
    _, *indices = zone.split(":")
    return [":".join(["intel-rapl", *indices[: depth + 1]]) for depth in range(len(indices))]


if __name__ == "__main__":
    write_zones(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
