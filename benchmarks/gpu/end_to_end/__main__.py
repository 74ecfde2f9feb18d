"""Runs MELODI before a real inference server on this machine's GPU, and checks its numbers.

    python -m benchmarks.gpu.end_to_end --out DIR [--wheels DIR] [--probe PROBE_JSON]

Models with random weights are made on the spot; nothing is fetched. Packages that this machine
lacks are taken from --wheels, a folder made elsewhere; --wheels-line prints how to make it. It
writes end_to_end.json, end_to_end.md and a PNG, anew after every stage.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.end_to_end.processes import ROOT, Engine, environment
from benchmarks.gpu.end_to_end.run import Plan, Run
from benchmarks.gpu.end_to_end.wheels import OURS, SERVER, download_line, install, missing

LIMIT_SECONDS = 570.0
GPU = Plan(sizes=("1b", "7b"))
CPU = Plan(sizes=("tiny",), phase_seconds=10, max_tokens=32, cost_pairs=2, space_bytes=10**8)
SHORT = Plan(
    sizes=("tiny",),
    concurrencies=(1, 4),
    phase_seconds=5,
    max_tokens=16,
    idle_seconds=8,
    cost_pairs=1,
    cost_requests=4,
    space_bytes=10**8,
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="end_to_end", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for what is found")
    parser.add_argument("--wheels", type=Path, help="folder with what is missing here")
    parser.add_argument("--wheels-line", action="store_true", help="print how to make that folder")
    parser.add_argument("--probe", type=Path, help="a probe.json made already; else it is made")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds for it all")
    parser.add_argument("--device", type=int, default=0, help="which GPU, as CUDA counts")
    parser.add_argument("--engine-python", default=sys.executable, help="has torch, transformers")
    parser.add_argument("--cpu", action="store_true", help="a tiny model on a CPU, scripted power")
    parser.add_argument("--short", action="store_true", help="with --cpu: only try everything once")
    asked = parser.parse_args()
    if asked.out is None and not asked.wheels_line:
        parser.error("say where to write: --out DIR")
    return asked


def main() -> int:
    """0: all was done and every check held."""
    asked = arguments()
    if asked.wheels_line:
        print(download_line())
        return 0
    end = time.monotonic() + asked.limit
    out: Path = asked.out.resolve()
    python = os.path.abspath(asked.engine_python)  # noqa: PTH100  a link into an environment stays
    out.mkdir(parents=True, exist_ok=True)
    plan = (SHORT if asked.short else CPU) if asked.cpu else GPU
    with tempfile.TemporaryDirectory(dir=roomy(plan.space_bytes)) as folder:
        work = Path(folder)
        site = install(asked.wheels, work / "site") if asked.wheels else None
        env = environment(site)
        lacking = missing(sys.executable, OURS, env) + missing(python, SERVER, env)
        if lacking:
            print(f"these are missing here: {', '.join(lacking)}; give --wheels", file=sys.stderr)
            return 1
        engine = Engine(python, "cpu" if asked.cpu else f"cuda:{asked.device}", env)
        own, probe = env, partial(probed, asked, out, env)
        if asked.cpu:
            # Needs the binding and a compiler, which a machine with a card need not have here.
            from benchmarks.gpu.end_to_end.stub import stub_environment, stub_probe

            own, probe = env | stub_environment(work), partial(stub_probe, work)
        run = Run(plan, engine, out, work, own, end)
        return 0 if run.go(probe) else 1


def probed(asked: argparse.Namespace, out: Path, env: dict[str, str]) -> dict[str, Any]:
    """What the probe found, run first unless that was done before."""
    path: Path = asked.probe or out / "probe.json"
    if asked.probe is None:
        command = [sys.executable, "-m", "benchmarks.gpu.probe", "--out", str(out)]
        command += ["--python", asked.engine_python]
        command += ["--device", str(asked.device), "--limit", "150"]
        subprocess.run(command, env=env, check=False, timeout=200)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def roomy(space_bytes: int) -> str | None:
    """Memory, where a folder in it has room for the model (written and read at once)."""
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return None
    told = os.statvfs(shm)
    return str(shm) if told.f_bavail * told.f_frsize > 2 * space_bytes else None


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
