"""Scripted power in place of a card, for machines without one: its figures mean nothing."""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.end_to_end.processes import ROOT
from benchmarks.gpu.probe.__main__ import run as run_probe
from benchmarks.gpu.probe.card import bus_id_of
from benchmarks.gpu.probe.load import StubMachine

sys.path.insert(0, str(ROOT / "tests" / "support"))

from nvml_stub import compile_stub, in_real_time

IDLE_WATTS, BUSY_WATTS = 90.0, 410.0
IDLE_SECONDS, BUSY_SECONDS, ALL_SECONDS = 0.7, 1.6, 1_200.0


def stub_environment(folder: Path) -> dict[str, str]:
    """In which NVML finds one GPU that is idle and busy in turns, from now on."""
    script, at = [(0.0, IDLE_WATTS)], 0.0
    while at < ALL_SECONDS:
        rise, fall = at + IDLE_SECONDS, at + IDLE_SECONDS + BUSY_SECONDS
        script += [(rise, IDLE_WATTS), (rise + 0.01, BUSY_WATTS)]
        script += [(fall, BUSY_WATTS), (fall + 0.01, IDLE_WATTS)]
        at = fall
    return in_real_time(compile_stub(folder), script, origin_ns=time.monotonic_ns())


def stub_probe(folder: Path) -> dict[str, Any]:
    """A probe of the stub in virtual time."""
    out = folder / "probe"
    out.mkdir()
    machine = StubMachine(folder / "libnvidia-ml.so.1")
    run_probe(machine, partial(bus_id_of, "cpu"), out=out, limit_seconds=280)
    found: dict[str, Any] = json.loads((out / "probe.json").read_text())
    return found
