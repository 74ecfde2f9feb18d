"""The daemon as users run it, with meters that count on a tree like the kernel's."""

import contextlib
import re
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.gateway.processes import REPOSITORY, free_port, running, wait_until
from benchmarks.gateway.wire import HOST

sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

from powercap_tree import PowercapTree

MELODI = Path(sys.executable).with_name("melodi")
WATTS = {"intel-rapl:0": 90.0, "intel-rapl:0:0": 12.0}
_SETTINGS = """
host = "bench"
api.listen = "{host}:{api_port}"
database.url = "sqlite:///{database}"
collectors = {{ use = ["rapl"], sysfs_root = "{sysfs}" }}

[[backends]]
name = "bench"
kind = "vllm"
url = "{upstream}"
listen = "{host}:{gateway_port}"
"""
_SPOOLED = re.compile(r"^melodi_spool_records (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Daemon:
    """A daemon that answers; everything is on."""

    process: psutil.Process
    gateway_port: int
    api_url: str
    database: Path

    def settle(self) -> None:
        """Wait until all that has passed is final in the database."""
        time.sleep(0.3)
        wait_until(self._is_settled, seconds=60)

    def records(self) -> int:
        """Final records in the database."""
        return self._count("NOT provisional")

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.api_url}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def _is_settled(self) -> bool:
        spooled = _SPOOLED.search(self.metrics())
        return spooled is not None and float(spooled[1]) == 0 and self._count("provisional") == 0

    def _count(self, which: str) -> int:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            found = connection.execute(f"SELECT count(*) FROM requests WHERE {which}").fetchone()
        return int(found[0])


@contextlib.contextmanager
def daemon(folder: Path, upstream_url: str) -> Iterator[Daemon]:
    """`melodi serve` in `folder`, with a CPU package and its memory to measure."""
    sysfs = Path(tempfile.mkdtemp(dir=folder))
    tree = PowercapTree(sysfs / "sys")
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:0:0", "dram")
    gateway_port, api_port = free_port(), free_port()
    database = folder / "melodi.db"
    settings = folder / "melodi.toml"
    settings.write_text(
        _SETTINGS.format(
            host=HOST,
            api_port=api_port,
            gateway_port=gateway_port,
            database=database,
            sysfs=tree.root,
            upstream=upstream_url,
        )
    )
    api_url = f"http://{HOST}:{api_port}"
    with (
        tree.drawing(WATTS),
        running(
            [MELODI, "serve", "--config", settings],
            url=f"{api_url}/healthz",
            log=folder / "melodi.log",
            environment={"XDG_DATA_HOME": str(folder / "data")},
        ) as process,
    ):
        yield Daemon(psutil.Process(process.pid), gateway_port, api_url, database)
