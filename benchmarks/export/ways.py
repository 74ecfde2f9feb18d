"""The ways that are compared; apart, so that a fresh process can import them."""

import csv
import resource
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from melodi.datasets.export import export_file
from melodi.datasets.selection import Export, Format


def plain_csv(path: Path, out: Path) -> None:
    """What one writes without MELODI: values as they lie in the file, without types."""
    connection = sqlite3.connect(path)
    cursor = connection.execute("SELECT * FROM requests ORDER BY started_at, id")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([column[0] for column in cursor.description])
        writer.writerows(cursor)
    connection.close()


def ours(path: Path, out: Path) -> None:
    """What `melodi export` does."""
    export_file(f"sqlite:///{path}", out, Export(format=Format(out.suffix[1:])))


def clocked(work: Callable[[Path, Path], None], path: Path, out: Path) -> tuple[float, float]:
    """Seconds that `work` took, and the peak MiB of this process."""
    began = time.perf_counter()
    work(path, out)
    seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
