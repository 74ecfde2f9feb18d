"""Rows a second of an export, beside the standard library's loop from sqlite3 to csv."""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from benchmarks.export.ways import clocked, ours, plain_csv
from melodi.clock import to_datetime
from melodi.datasets.selection import Format
from melodi.energy.record import DomainEnergy, EnergyRecord, Quality, Status
from melodi.ids import new_id
from melodi.store.database import open_engine
from melodi.store.migrate import upgrade
from melodi.store.records import Batch, RecordStore

START_NS = 1_767_225_600_000_000_000
BATCH = 2_000


def main() -> None:
    """Fill a database, export it in every format, and print what that took."""
    parser = argparse.ArgumentParser(prog="benchmarks.export", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="keep the database in this folder, or use it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        path = folder / f"records-{asked.rows}.db"
        if not path.exists():
            fill(path, asked.rows)
        measure(path, Path(scratch), asked.rows)


def fill(path: Path, rows: int) -> None:
    """Write `rows` records as a daemon does, roll-ups and all."""
    url = f"sqlite:///{path}"
    upgrade(url)
    engine = open_engine(url)
    store = RecordStore(engine)
    began = time.perf_counter()
    for first in range(0, rows, BATCH):
        some = tuple(record(number) for number in range(first, min(first + BATCH, rows)))
        store.apply([Batch(host="bench", records=some)])
    engine.dispose()
    seconds = time.perf_counter() - began
    print(f"wrote {rows:,} records with their roll-ups: {rows / seconds:,.0f} rows/s")


def record(number: int) -> EnergyRecord:
    """A record such as traffic leaves; a third know nothing of the processor."""
    wall_ns = START_NS + number * 2_000_000_000
    known = number % 3 > 0
    joules = 5.0 + number % 97 / 7
    gpu = DomainEnergy(scope="gpu", source="nvml", joules=joules, quality=Quality.MEASURED)
    return EnergyRecord(
        id=new_id(wall_ns),
        provisional=False,
        origin="sensor",
        host="bench",
        backend="vllm",
        backend_kind="vllm",
        model=f"model-{number % 5}",
        tags={"run": str(number % 10)},
        prompt_hash=f"{number:064x}",
        streamed=True,
        status=Status.OK,
        started_at=to_datetime(wall_ns) + timedelta(microseconds=number % 1000),
        duration_seconds=1.0 + number % 13 / 10,
        time_to_first_token_seconds=0.05 + number % 11 / 100,
        time_per_output_token_seconds=0.01,
        input_tokens=300 + number % 500,
        output_tokens=50 + number % 200,
        footprint="gpu+cpu" if known else "gpu",
        energy_joules=joules,
        active_joules=joules * 0.8,
        idle_share_joules=joules * 0.2,
        cpu_joules=joules * 0.1 if known else None,
        low_joules=joules * 0.9,
        high_joules=joules * 1.1,
        domains={"gpu:0": gpu},
        policy="time",
        policy_version=1,
        quality=Quality.MEASURED,
    )


def measure(path: Path, folder: Path, rows: int) -> None:
    """Each way in a process of its own, one after the other; its time and its peak of memory."""
    baseline = timed(plain_csv, path, folder / "plain.csv")
    report("sqlite3 to csv", rows, baseline, baseline)
    for chosen in Format:
        out = folder / f"records.{chosen}"
        report(f"melodi {chosen}", rows, timed(ours, path, out), baseline)


def timed(work: Callable[[Path, Path], None], path: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak MiB of `work` in a fresh process, its imports left out of the seconds."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(clocked, (work, path, out))


def report(name: str, rows: int, found: tuple[float, float], baseline: tuple[float, float]) -> None:
    """One line: rows a second, how that stands to the baseline, and memory."""
    seconds, peak_mib = found
    ratio = baseline[0] / seconds
    print(f"{name:<16} {rows / seconds:>10,.0f} rows/s  {ratio:>5.1f} x  peak {peak_mib:,.0f} MiB")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
