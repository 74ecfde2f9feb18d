"""A real server beside foreign work, on stubbed sensors: who is charged for what."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from burning_server import BurningServer, burner, burning_server
from command import Shell
from killing import daemon
from nvml_stub import compile_stub, in_real_time
from powercap_tree import PowercapTree
from waiting import PATIENCE_SECONDS, wait_for

from collectors.base import Domain, Kind, Measure
from melodi.inference.processes import HostProcesses
from melodi.store.database import open_engine
from melodi.store.migrate import upgrade
from melodi.store.records import RecordStore

GPU_IDLE_WATTS, GPU_BUSY_WATTS = 80.0, 300.0
CPU_IDLE_WATTS, CPU_BUSY_WATTS = 20.0, 60.0
GPUS = [f"gpu:GPU-0000000{device}-0000-4000-8000-000000000000" for device in (0, 1)]
PACKAGE, DRAM = "intel-rapl:0", "intel-rapl:0:0"


@dataclass
class Stage:
    """A daemon between a client and a server, and what its sensors show."""

    server: BurningServer
    api_url: str
    gateway_url: str
    processes: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.api_url + path, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def post(self, seconds: float) -> str:
        """Let the server burn for so long; the id of the record."""
        asked = urllib.request.Request(
            f"{self.gateway_url}/v1/completions",
            data=json.dumps({"model": "burner", "prompt": str(seconds)}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE_SECONDS) as answer:
            answer.read()
            return str(answer.headers["X-Melodi-Request-Id"])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    tree = PowercapTree(tmp_path / "sys")
    tree.add(PACKAGE, "package-0")
    tree.add(DRAM, "dram")
    library = compile_stub(tmp_path)
    watts = {PACKAGE: CPU_BUSY_WATTS, DRAM: CPU_BUSY_WATTS / 4}
    processes = tmp_path / "processes"
    processes.touch()
    shell = Shell(tmp_path)
    with burning_server() as server, tree.drawing(watts):
        (tmp_path / "melodi.toml").write_text(
            f'host = "shares"\n[api]\nlisten = "127.0.0.1:0"\n'
            f'[database]\nurl = "sqlite:///{tmp_path}/melodi.db"\n'
            f'[collectors]\nuse = ["nvml", "rapl"]\nsysfs_root = "{tmp_path}/sys"\n'
            '[attribution]\nidle_quiet = "1s"\n'
            f'[[backends]]\nname = "b"\nkind = "openai"\nurl = "{server.url}"\n'
            'listen = "127.0.0.1:0"\n'
        )
        _know_idle_power(f"sqlite:///{tmp_path}/melodi.db")
        power = [(0.0, GPU_BUSY_WATTS)]
        stub = in_real_time(library, power, power, processes=processes)
        with daemon(shell, **stub) as (_, (api_url, gateway_url)):
            yield Stage(server, api_url, gateway_url, processes)


def _know_idle_power(url: str) -> None:
    """As if an earlier daemon had learned it, so that the test need not wait for that."""
    upgrade(url)
    watts = dict.fromkeys(GPUS, GPU_IDLE_WATTS)
    watts |= {"package:0": CPU_IDLE_WATTS, "dram:0": CPU_IDLE_WATTS / 4}
    domains = [
        Domain(name=name, kind=Kind.CPU, scope="", source="", measure=Measure.COUNTER)
        for name in watts
    ]
    engine = open_engine(url)
    store, now = RecordStore(engine), datetime.now(UTC)
    store.hosts.keep("shares", seen_at=now, machine_id=None, cpu=None, inventory={})
    store.hosts.keep_domains("shares", domains, seen_at=now)
    store.hosts.keep_idle_watts("shares", watts)
    engine.dispose()


@contextmanager
def share_of(pids: set[int]) -> Iterator[list[float]]:
    """The part that processes had in the host's CPU time while the context lasted."""
    table = HostProcesses()

    def look() -> tuple[int, int]:
        found = [one for pid in pids if (one := table.read(pid)) is not None]
        return sum(one.own_ns for one in found), table.busy_ns()

    part: list[float] = []
    used_ns, busy_ns = look()
    yield part
    used_after_ns, busy_after_ns = look()
    part.append((used_after_ns - used_ns) / (busy_after_ns - busy_ns))


def test_a_server_is_charged_for_its_own_gpu_and_its_part_of_the_work(stage: Stage) -> None:
    """Two processes of it, a burner beside them, another GPU: foreign work is not the request's."""
    with burner() as foreign:
        stage.processes.write_text(
            f"0 {stage.server.worker} 1000 75\n0 {foreign} 1000 25\n1 {foreign} 1000 50\n"
        )

        def found() -> bool:
            (backend,) = stage.get("/v1/backends")["items"]
            return bool(backend["process"]["gpus"])

        wait_for(found)
        (backend,) = stage.get("/v1/backends")["items"]
        process = backend["process"]
        assert (process["pid"], process["count"]) == (stage.server.pid, 2)
        assert (process["presence"], process["found_by"]) == ("found", "port")
        assert process["gpus"] == GPUS[:1]
        assert backend["domains"] == [GPUS[0], "package:0", "dram:0"]
        assert backend["domains_from"] == "processes"

        with share_of({stage.server.pid, stage.server.worker}) as part:
            name = stage.post(4.0)
        record = stage.get(f"/v1/requests/{name}?wait=60")
    assert record["provisional"] is False
    assert set(record["domains"]) == {GPUS[0], "package:0", "dram:0"}
    seconds = record["duration_seconds"]
    dynamic_gpu = (GPU_BUSY_WATTS - GPU_IDLE_WATTS) * seconds
    gpu = record["domains"][GPUS[0]]
    assert gpu["active_joules"] == pytest.approx(0.75 * dynamic_gpu, rel=0.1)
    assert gpu["reasons"] == ["foreign_estimated"]
    for domain, watts in (("package:0", CPU_BUSY_WATTS), ("dram:0", CPU_BUSY_WATTS / 4)):
        dynamic = watts * (1 - CPU_IDLE_WATTS / CPU_BUSY_WATTS) * seconds
        found_part = record["domains"][domain]["active_joules"] / dynamic
        # Its first and last second are shared with the time before and after it.
        assert found_part == pytest.approx(part[0], abs=0.12)
        assert 0 < found_part < 0.9
    assert record["quality_reasons"] == ["foreign_estimated"]
    lines = {one["domain"]: one for one in stage.get("/v1/ledger?by=domain")["items"]}
    for domain in (GPUS[0], "package:0", "dram:0"):
        assert lines[domain]["foreign_joules"] > 0.1 * record["domains"][domain]["active_joules"]
        assert abs(lines[domain]["residual_joules"]) < 1e-6
    assert lines[GPUS[1]]["active_joules"] == 0
