"""What sampling takes of one core, how late it is, and whether it loses energy.

python -m benchmarks.sampler [--seconds N] [--peers] [--write]

With --peers CodeCarbon and Zeus run over the same GPUs, from an environment that is made in
`build/peers`. With --write the table goes into docs/measuring.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from nvml_stub import compile_stub, in_real_time
from powercap_tree import PowercapTree

from benchmarks.page import table, write_between_marks
from benchmarks.sampler import peers, world

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "measuring.md"
PEERS_FOLDER = ROOT / "build" / "peers"
PACKAGES = ("codecarbon", "zeus", "nvidia-ml-py")
CASES = ((10, 10, "thread"), (20, 10, "thread"), (20, 20, "thread"), (100, 100, "thread"))
CASES += ((20, 20, "process"), (100, 100, "process"))
"""How often GPUs and processors are read in a second, the second as by default."""
TARGET_CASE, TARGET_RATIO = (20, 20, "thread"), 0.01
"""Of one core, for the threads that sample."""
START_SECONDS = (12, 24, 48)
"""For a subject to be ready, at first and where that was not enough."""
INTRODUCTION = """
Written by `python -m benchmarks.sampler --peers --write` on {processors} processors, CPython
{python}. Eight GPUs (the real binding over a stand-in for the driver, counters renewed every
100 ms) and four RAPL zones (files that another process writes) draw a wave for {seconds:g} s, while
API and gateways answer clients as fast as they can: the API in the process that samples, the
gateways, as always, in processes of their own. A stand-in answers faster
than a driver: what the calls into a real one cost is not in here. The mean number of processes
that ran or wanted to was {before:.1f} before and {after:.1f} after: where it is above that of the
processors, others were in the way, and lateness is theirs.

The second line is as MELODI reads by default. "Sampling" is CPU time of the daemon's threads that
read, or hear from the process that does; "feeding" is what its other threads take to make energy
curves of what was read; "reading process" is CPU time of the child, all of it. "Lost" is what the
counters gained in the wave, read beside MELODI, less what the curves did, over all twelve.
"Bare loop" is the same calls and reads, as often, in two threads beside MELODI's that do nothing
else; it is in "whole daemon" too.
Looking for new meters is not in "sampling": it is done often at first and once a minute at rest,
and takes the time told below.
"""


OTHERS = """
The same GPUs by others, without any load: the cost is CPU time of the whole process and its
children in the wave, as a share of one core; the error that of the GPUs' energy in it:
"""


@contextmanager
def playing(
    library: Path,
    seconds: float,
    *,
    start_seconds: int,
    still_watts: float,
) -> Iterator[tuple[Path, int, dict[str, str]]]:
    """A world that begins in so many seconds: its sysfs root, its origin, and its environment."""
    with tempfile.TemporaryDirectory(prefix="melodi-sampler-") as folder:
        tree = PowercapTree(Path(folder) / "sys")
        for zone, name in zip(world.ZONES, world.NAMES, strict=True):
            tree.add(zone, name)
            tree.energy_file(zone).chmod(0o600)
        origin_ns = time.monotonic_ns() + start_seconds * 10**9
        scripts = [
            world.gpu_script(number, seconds, still_watts=still_watts)
            for number in range(world.GPUS)
        ]
        environment = os.environ | in_real_time(library, *scripts, origin_ns=origin_ns)
        environment["XDG_DATA_HOME"] = folder
        # CodeCarbon looks for this program before it asks NVML.
        (Path(folder) / "nvidia-smi").symlink_to("/bin/true")
        environment["PATH"] = f"{folder}:{environment['PATH']}"
        writer = subprocess.Popen(
            [sys.executable, world.__file__, tree.root, str(origin_ns), str(seconds)]
        )
        try:
            yield tree.root, origin_ns, environment
        finally:
            writer.kill()
            writer.wait()


def figures(
    library: Path,
    seconds: float,
    command: Callable[[Path, int], list[str]],
    *,
    still_watts: float = 0.0,
) -> dict[str, Any]:
    """The JSON that the command ends with; on a busy host it is given longer to be ready."""
    for start_seconds in START_SECONDS:
        with playing(
            library, seconds, start_seconds=start_seconds, still_watts=still_watts
        ) as stage:
            words, environment = command(stage[0], stage[1]), stage[2]
            ended = subprocess.run(
                words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
            )
        if ended.returncode == 0:
            found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
            return found
        if ended.returncode != world.TOO_LATE:
            break
    return sys.exit(f"{' '.join(words)} failed:\n{ended.stdout}{ended.stderr}")


Case = tuple[int, int, str]


def subject(seconds: float, case: Case, root: Path, origin_ns: int) -> list[str]:
    """The command of one daemon under load."""
    words = [sys.executable, "-m", "benchmarks.sampler.subject", str(root), str(origin_ns)]
    return [*words, str(seconds), *map(str, case), str(root.parent)]


def peer(python: Path, name: str, seconds: float, root: Path, origin_ns: int) -> list[str]:
    """The command of one peer."""
    words = [str(python), peers.__file__, name, str(origin_ns)]
    return [*words, str(seconds), str(root.parent)]


def ours(library: Path, seconds: float) -> tuple[list[list[str]], list[list[str]]]:
    """The table's rows, and those of the targets."""
    rows, lost_uj, looking_ms = [], 0, 0.0
    found: dict[Case, dict[str, Any]] = {}
    for case in CASES:
        one = figures(library, seconds, partial(subject, seconds, case))
        if one["faults"]:
            sys.exit(f"{case}: {one['faults']}")
        lost_uj += lost_of(one)
        looking_ms = max(looking_ms, one["looking_ms"])
        found[case] = one
        rows.append(row(case, seconds, one))
        print(rows[-1], file=sys.stderr, flush=True)
    gpu_hertz, _, mode = TARGET_CASE
    one = found[TARGET_CASE]
    sampling, feeding, bare = (one[f"{name}_ratio"] for name in ("sampling", "feeding", "bare"))
    return rows, [
        target(
            f"sampling at {gpu_hertz} Hz in a {mode}",
            f"{sampling:.2%}",
            "<= 1.00%",
            sampling - TARGET_RATIO,
        ),
        ["times the bare loop", f"{sampling / bare:.2f}", "", ""],
        ["times the bare loop, with feeding", f"{(sampling + feeding) / bare:.2f}", "", ""],
        target("lost, all of the above", f"{lost_uj} uJ", "0 uJ", lost_uj),
        ["looking for meters in a wave", f"{looking_ms:.0f} ms", "", ""],
    ]


def lost_of(one: dict[str, Any]) -> int:
    return sum(abs(uj) for uj in one["lost_uj"].values())


def row(case: Case, seconds: float, one: dict[str, Any]) -> list[str]:
    gpu_hertz, cpu_hertz, mode = case
    return [
        f"{gpu_hertz} / {cpu_hertz} Hz",
        mode,
        f"{one['sampling_ratio']:.2%}",
        f"{one['feeding_ratio']:.2%}",
        f"{one['bare_ratio']:.2%}" if mode == "thread" else "",
        f"{one['child_ratio']:.2%}" if mode == "process" else "",
        f"{one['late_p50_ms']:.2f} / {one['late_p99_ms']:.2f}",
        f"{one['beats'] / seconds:.1f}",
        f"{lost_of(one)} uJ of {one['measured_uj'] / 1e6:,.0f} J",
        f"{one['process_ratio']:.0%} at {one['requests_per_second']:.0f}/s",
    ]


def target(name: str, measured: str, wanted: str, beyond: float) -> list[str]:
    """One row of the targets; `beyond` is how far it was missed, 0 or less where it was met."""
    return [name, measured, wanted, "met" if beyond <= 0 else "**missed**"]


def others(library: Path, seconds: float) -> list[list[str]]:
    python = PEERS_FOLDER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS_FOLDER], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(install, check=True)
    rows = []
    for name, (_, _, still_watts) in peers.PEERS.items():
        words = partial(peer, python, name, seconds)
        one = figures(library, seconds, words, still_watts=still_watts)
        cost, error = f"{one['cpu_ratio']:.2%}", f"{one['error_ratio']:+.2%}"
        rows.append([f"{name} ({one['version']})", cost, error])
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    headings = ["GPUs / CPUs read at", "in a", "sampling", "feeding", "bare loop"]
    headings += [
        "reading process",
        "late p50 / p99 ms",
        "beats/s",
        "lost",
        "whole daemon, requests",
    ]
    with tempfile.TemporaryDirectory() as folder:
        library = compile_stub(Path(folder))
        rows, targets = ours(library, options.seconds)
        parts = [table(headings, rows), table(["target", "measured", "wanted", ""], targets)]
        if options.peers:
            parts += [
                OTHERS.strip(),
                table(["", "cost", "error"], others(library, options.seconds)),
            ]
    introduction = INTRODUCTION.format(
        processors=os.cpu_count(),
        python=platform.python_version(),
        seconds=options.seconds,
        before=before,
        after=os.getloadavg()[0],
    )
    text = "\n\n".join([introduction.strip(), *parts])
    print(text)
    if options.write:
        write_between_marks(PAGE, "sampler", text)


if __name__ == "__main__":
    main()
