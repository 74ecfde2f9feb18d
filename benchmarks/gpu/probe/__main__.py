"""Probes the energy and power sensors of one NVIDIA GPU, and changes nothing on it.

    python -m benchmarks.gpu.probe --out DIR

This folder is all it takes, with nvidia-ml-py and torch: copied to any machine with CUDA it runs
as `python -m probe --out DIR`. It writes probe.json and probe.md, anew after every stage, so that
what was found is never lost. `waves.py` explains how refresh and window are told.
"""

import argparse
import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from .card import bus_id_of, card_at
from .load import Machine, StubMachine, TorchMachine
from .page import page
from .stages import Found, Probe

LIMIT_SECONDS = 280.0


def main() -> int:
    """0: all was done; 1: a stage failed, or there was no time for it."""
    parser = argparse.ArgumentParser(prog="probe", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found")
    parser.add_argument("--device", type=int, default=0, help="which GPU, as CUDA counts")
    parser.add_argument("--load", choices=("cuda", "cpu"), default="cuda", help="where kernels run")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has torch")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds for it all")
    parser.add_argument("--stub", type=Path, help="a scripted driver in virtual time instead")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    load = "cpu" if asked.load == "cpu" or asked.stub else f"cuda:{asked.device}"
    machine: Machine = TorchMachine(load, python=asked.python)
    if asked.stub:
        machine = StubMachine(asked.stub)
    return run(machine, partial(bus_id_of, load), out=asked.out, limit_seconds=asked.limit)


def run(machine: Machine, bus_id: Callable[[], str], *, out: Path, limit_seconds: float) -> int:
    """Probe the card with this bus id, that the machine keeps busy, and write to `out`; as `main`.

    `bus_id` raises NotTold where that is not known.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        card = card_at(pynvml, bus_id)
        probe = Probe(pynvml, card.handle, machine)
        probe.found["watched"] = {"uuid": card.uuid, "doubt": card.doubt}
        probe.found["probed_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        probe.found["python"] = sys.version.split()[0]
        with contextlib.closing(machine):
            return 1 if in_turn(probe, out, limit_seconds) else 0
    finally:
        pynvml.nvmlShutdown()


def in_turn(probe: Probe, out: Path, limit_seconds: float) -> Found:
    """Run the stages; one that fails or would not end in time is told, and the next begins."""
    end = time.monotonic() + limit_seconds
    not_done: Found = {}
    probe.found |= {"not_done": not_done, "seconds": {}}
    for name in tuple(probe.stages):
        stage, expected_seconds = probe.stages[name]
        print(f"probe: {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        if began + expected_seconds > end:
            not_done[name] = f"no time: it takes about {expected_seconds:.0f} s; raise --limit"
        else:
            attempt(name, stage, not_done)
        probe.found["seconds"][name] = round(time.monotonic() - began, 2)
        save(probe.found, out)
    return not_done


def attempt(name: str, stage: Callable[[], None], not_done: Found) -> None:
    try:
        stage()
    except Exception as error:  # noqa: BLE001  the other stages tell something without this one
        traceback.print_exc()
        not_done[name] = f"{type(error).__name__}: {error}"


def save(found: dict[str, Any], out: Path) -> None:
    (out / "probe.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "probe.md").write_text(page(found))


def command() -> None:
    """The probe as a program."""
    sys.exit(main())


if __name__ == "__main__":
    command()
