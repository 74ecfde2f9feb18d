"""A real server beside foreign work, on stubbed sensors: who is charged for what."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from burning_server import BurningServer, burner, burning_server
from command import Shell
from killing import daemon
from nvml_stub import compile_stub, in_real_time
from powercap_tree import PowercapTree

from melodi.inference.processes import HostProcesses

IDLE_SECONDS = 12.0
"""The GPUs idle for so long, from the start of the daemon."""
GPU_IDLE_WATTS, GPU_BUSY_WATTS = 80.0, 300.0
CPU_IDLE_WATTS, CPU_BUSY_WATTS = 20.0, 60.0
PACKAGE, DRAM = "intel-rapl:0", "intel-rapl:0:0"


@dataclass
class Stage:
    """A daemon between a client and a server, and what its sensors show."""

    server: BurningServer
    api_url: str
    gateway_url: str
    watts: dict[str, float]
    busy_ns: int
    """The GPUs are busy from then on."""
    processes: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.api_url + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, seconds: float) -> str:
        """Let the server burn for so long; the id of the record."""
        asked = urllib.request.Request(
            f"{self.gateway_url}/v1/completions",
            data=json.dumps({"model": "burner", "prompt": str(seconds)}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            answer.read()
            return str(answer.headers["X-Melodi-Request-Id"])

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 40
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    tree = PowercapTree(tmp_path / "sys")
    tree.add(PACKAGE, "package-0")
    tree.add(DRAM, "dram")
    library = compile_stub(tmp_path)
    watts = {PACKAGE: CPU_IDLE_WATTS, DRAM: CPU_IDLE_WATTS / 4}
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
        ramp = [
            (IDLE_SECONDS, GPU_IDLE_WATTS),
            (IDLE_SECONDS + 0.01, GPU_BUSY_WATTS),
        ]
        now_ns = time.monotonic_ns()
        stub = in_real_time(library, ramp, ramp, origin_ns=now_ns, processes=processes)
        with daemon(shell, **stub) as (_, (api_url, gateway_url)):
            busy_ns = now_ns + round(IDLE_SECONDS * 1e9)
            yield Stage(server, api_url, gateway_url, watts, busy_ns, processes)


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
    gpus = [one["name"] for one in stage.get("/v1/domains")["items"] if one["kind"] == "gpu"]
    with burner() as foreign:
        stage.processes.write_text(
            f"0 {stage.server.worker} 1000 75\n0 {foreign} 1000 25\n1 {foreign} 1000 50\n"
        )

        def found() -> bool:
            (backend,) = stage.get("/v1/backends")["items"]
            return bool(backend["process"]["gpus"])

        stage.until(found)
        (backend,) = stage.get("/v1/backends")["items"]
        process = backend["process"]
        assert (process["pid"], process["count"]) == (stage.server.pid, 2)
        assert (process["presence"], process["found_by"]) == ("found", "port")
        assert process["gpus"] == gpus[:1]
        assert backend["domains"] == [gpus[0], "package:0", "dram:0"]
        assert backend["domains_from"] == "processes"

        def idle_known() -> bool:
            domains = stage.get("/v1/domains")["items"]
            return all(one["idle_watts"] is not None for one in domains)

        stage.until(idle_known)
        assert time.monotonic_ns() < stage.busy_ns, "the machine is too slow for this script"
        stage.until(lambda: time.monotonic_ns() >= stage.busy_ns)
        stage.watts.update({PACKAGE: CPU_BUSY_WATTS, DRAM: CPU_BUSY_WATTS / 4})
        with share_of({stage.server.pid, stage.server.worker}) as part:
            name = stage.post(4.0)
        record = stage.get(f"/v1/requests/{name}?wait=30")
    assert record["provisional"] is False
    assert set(record["domains"]) == {gpus[0], "package:0", "dram:0"}
    seconds = record["duration_seconds"]
    dynamic_gpu = (GPU_BUSY_WATTS - GPU_IDLE_WATTS) * seconds
    gpu = record["domains"][gpus[0]]
    assert gpu["active_joules"] == pytest.approx(0.75 * dynamic_gpu, rel=0.1)
    assert gpu["reasons"] == ["foreign_estimated"]
    for domain, watts in (("package:0", CPU_BUSY_WATTS), ("dram:0", CPU_BUSY_WATTS / 4)):
        dynamic = watts * (1 - CPU_IDLE_WATTS / CPU_BUSY_WATTS) * seconds
        found_part = record["domains"][domain]["active_joules"] / dynamic
        # Its first and last second are shared with the time before and after it.
        assert found_part == pytest.approx(part[0], abs=0.15)
        assert 0.05 < found_part < 0.9
    assert record["quality_reasons"] == ["foreign_estimated"]
    lines = {one["domain"]: one for one in stage.get("/v1/ledger?by=domain")["items"]}
    for domain in (gpus[0], "package:0", "dram:0"):
        assert lines[domain]["foreign_joules"] > 0.1 * record["domains"][domain]["active_joules"]
        assert abs(lines[domain]["residual_joules"]) < 1e-6
    assert lines[gpus[1]]["active_joules"] == 0
