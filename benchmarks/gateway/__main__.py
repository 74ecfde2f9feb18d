"""The gateway's speed beside its peers', as the tables of docs/performance.md.

python -m benchmarks.gateway [--litellm | --full] [--write]
"""

import argparse
import importlib.metadata
import platform
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.gateway import litellm, steady
from benchmarks.gateway.candidates import MELODI, Candidate, candidates, upstream
from benchmarks.gateway.daemon import daemon
from benchmarks.gateway.measure import Driver, Load, compare, driver
from benchmarks.gateway.report import tables, target_table, targets
from benchmarks.gateway.wire import HOST
from benchmarks.page import table, write_between_marks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
PLAIN_LOADS = (Load(1, False), Load(16, False), Load(128, False))
STREAM_LOADS = (Load(1, True), Load(16, True), Load(128, True))
VERSIONS = ("uvicorn", "uvloop", "httptools", "aiohttp", "fastapi", "httpx", "sqlalchemy")
ENDURANCE_MINUTES = 10


def main() -> None:
    """Measure, print, and write the page where that is asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks.gateway", description=__doc__)
    parser.add_argument("--litellm", action="store_true", help="compare with LiteLLM's proxy, too")
    parser.add_argument("--full", action="store_true", help="instead what takes 15 minutes")
    parser.add_argument("--keep", type=Path, help="keep the long ones' database in this folder")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    asked = parser.parse_args()
    with upstream() as port, driver() as driving:
        if asked.full:
            name, text = "steady", _steady(port, driving, asked.keep)
        else:
            name, text = "gateway", _compared(port, driving, with_litellm=asked.litellm)
    print(text)
    if asked.write:
        write_between_marks(PAGE, name, text)


def _compared(port: int, driving: Driver, *, with_litellm: bool) -> str:
    """All candidates side by side; then 250 streams, and the memory that each holds by then."""
    refusal = litellm.install() if with_litellm else None
    with_litellm = with_litellm and refusal is None
    with (
        tempfile.TemporaryDirectory() as folder,
        candidates(Path(folder), port, with_litellm=with_litellm) as all_,
    ):
        for one in all_:
            # The first requests of all make connections and caches.
            compare([one], [Load(16, False)], driving, rounds=1, seconds=0.5)
        found = compare(all_, PLAIN_LOADS, driving, rounds=3, seconds=1.0)
        found |= compare(all_, STREAM_LOADS, driving, rounds=1, seconds=1.0)
        (melodi,) = (one for one in all_ if one.name == MELODI)
        met = targets(found) + steady.streams(driving, melodi, port, seconds=5)
        parts = [introduction("", with_litellm=with_litellm)]
        if refusal is not None:
            parts.append(f"LiteLLM could not be installed: {refusal}")
        return "\n\n".join([*parts, tables(found), _memory(all_), "Targets:", target_table(met)])


def _steady(port: int, driving: Driver, keep: Path | None) -> str:
    """What takes its time."""
    with tempfile.TemporaryDirectory() as scratch:
        met = steady.streams_amid_export(
            keep or Path(scratch), driving, port, records=steady.RECORDS, seconds=20
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        daemon(Path(folder), f"http://{HOST}:{port}") as melodi,
    ):
        met += steady.endurance(driving, melodi, minutes=ENDURANCE_MINUTES)
    return introduction("--full ", with_litellm=False) + "\n\n" + target_table(met)


def _memory(all_: list[Candidate]) -> str:
    rows = [[one.name, f"{one.memory_mib:.0f}"] for one in all_ if one.process is not None]
    return "Memory after all of this:\n\n" + table(["", "MiB"], rows)


def introduction(options: str, *, with_litellm: bool) -> str:
    """How it was measured."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in VERSIONS]
    if with_litellm:
        versions.append(f"LiteLLM {litellm.version()} ({litellm.SETTINGS})")
    day = time.strftime("%Y-%m-%d")
    return "\n".join(
        [
            f"Written by `python -m benchmarks.gateway {options}--write` on {day};",
            f"{_processor()}, {psutil.cpu_count()} logical processors that client, gateway and",
            f"upstream share; CPython {platform.python_version()},",
            f"{', '.join(versions)}.",
        ]
    )


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
