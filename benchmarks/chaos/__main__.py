"""Lets clients and backends misbehave round a real daemon, and counts what stays behind.

Run with: python -m benchmarks.chaos [REQUESTS]
"""

import asyncio
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from benchmarks.gateway.processes import descriptors, family, memory_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from command import Shell
from killing import daemon, stored
from scripted_server import ScriptedServer, scripted
from storm import LEAVING, Storm, answer

REQUESTS = 3_000
SHORT = 10_000
AT_ONCE = 64
ROUNDS = 3
MOST_GROWTH = 1.10
"""Of memory: the database's cache and the ring of samples go on filling for a while."""
DATABASE_FILES = 4
"""The pool of its connections opens this many more files, as they are wanted."""
SETTINGS = """
host = "killed"
[api]
listen = "127.0.0.1:0"
[database]
url = "sqlite:///{folder}/melodi.db"
[collectors]
use = ["estimate"]
[[backends]]
name = "b"
kind = "ollama"
url = "{url}"
listen = "127.0.0.1:0"
"""


@dataclass(frozen=True)
class Look:
    """What the daemon holds when nobody asks it for anything."""

    descriptors: int
    connections: int
    mebibytes: float


async def rest(process: psutil.Process, backend: ScriptedServer, api: str) -> Look:
    """Wait until nothing is under way any more, and look."""
    await backend.all_closed()
    async with aiohttp.ClientSession() as session, asyncio.timeout(120):
        waiting = True
        while waiting:
            async with session.get(f"{api}/metrics", headers={"Connection": "close"}) as said:
                waiting = re.search(r"^melodi_spool_records 0", await said.text(), re.M) is None
            await asyncio.sleep(0.2)
    established = [
        one
        for each in family(process)
        for one in each.net_connections("tcp")
        if one.status == "ESTABLISHED"
    ]
    return Look(descriptors(process), len(established), memory_bytes(process) / 2**20)


async def short(url: str, requests: int) -> int:
    """So many small requests; how many were answered well."""
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    body = {"model": "m", "prompt": "whole/", "stream": False}
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> bool:
            async with session.post(f"{url}/api/generate", json=body) as found:
                await found.read()
                return found.status == 200

        return sum(await asyncio.gather(*(one() for _ in range(requests))))


async def measure(folder: Path, requests: int) -> tuple[list[Storm], list[int], list[Look]]:
    """A warm-up round, then so many that count, each a storm and a rain of short requests."""
    storms = [Storm(seed) for seed in range(ROUNDS + 1)]
    answered, looks = [], []
    async with scripted(answer) as backend:  # type: ignore[arg-type]
        (folder / "melodi.toml").write_text(SETTINGS.format(folder=folder, url=backend.url))
        context = daemon(Shell(folder))
        process, (api, gateway) = await asyncio.to_thread(context.__enter__)
        watched = psutil.Process(process.pid)
        for now in storms:
            await now.blow(gateway, requests // ROUNDS, at_once=AT_ONCE)
            answered.append(await short(gateway, SHORT // ROUNDS))
            looks.append(await rest(watched, backend, api))
        process.terminate()
        await asyncio.to_thread(process.wait, 60)
        await asyncio.to_thread(context.__exit__, None, None, None)
    return storms, answered, looks


def main() -> int:
    """Print what was done and what stayed; 1 where something was wrong, lost or kept."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    with tempfile.TemporaryDirectory(prefix="melodi-chaos-") as name:
        storms, answered, looks = asyncio.run(measure(Path(name), requests))
        records = len(stored(Path(name)))
    print("round", "requests", "leavers", "wrong", "short ok", "open files", "connections", "MiB",
          sep="\t")  # fmt: skip
    for number, (storm, well, look) in enumerate(zip(storms, answered, looks, strict=True)):
        leavers = sum(storm.sent[kind] for kind in LEAVING)
        row = (storm.sent.total(), leavers, len(storm.wrong), well, look.descriptors)
        label = number or "warm-up"
        print(label, *row, look.connections, f"{look.mebibytes:.0f}", sep="\t")
        for fault in storm.wrong[:5]:
            print(f"  {fault}")
    owed = sum(storm.owed for storm in storms) + sum(answered)
    growth = looks[-1].mebibytes / looks[0].mebibytes
    print(
        f"records: {records} of {owed}; memory after all to memory after the warm-up: {growth:.3f}"
    )
    good = records == owed and not any(storm.wrong for storm in storms)
    good = (
        good
        and looks[-1].descriptors <= looks[0].descriptors + DATABASE_FILES
        and growth <= MOST_GROWTH
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
