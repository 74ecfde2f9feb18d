"""`melodi doctor` finds, names and times what is there, and says how to mend what is not."""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from burning_server import burning_server
from command import Shell
from hwmon_tree import HwmonTree
from nvml_stub import compile_stub, in_real_time
from powercap_tree import PowercapTree, obey_file_modes
from waiting import PATIENCE_SECONDS
from warm import MELODI

GPUS = [f"gpu:GPU-0000000{device}-0000-4000-8000-000000000000" for device in (0, 1)]
CARD = "hwmon:amdgpu-0000:03:00.0-ppt"


@pytest.fixture
def tree() -> Iterator[PowercapTree]:
    """A processor with its memory and its platform, in a folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        tree = PowercapTree(Path(folder) / "sys")
        tree.add("intel-rapl:0", "package-0")
        tree.add("intel-rapl:0:0", "dram")
        tree.add("intel-rapl:1", "psys")
        yield tree


def at(tree: PowercapTree) -> dict[str, str]:
    return {"MELODI_COLLECTORS__SYSFS_ROOT": str(tree.root)}


def domains_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {domain["name"]: domain for one in found["collectors"] for domain in one["domains"]}


def test_on_a_full_host_everything_is_found_named_and_timed(
    shell: Shell, tree: PowercapTree, tmp_path: Path
) -> None:
    """Two GPUs, a processor, its memory, its platform, and a card of another maker."""
    HwmonTree(tree.root).add(
        0, "amdgpu", "0000:03:00.0", power1_average=45_000_000, power1_label="PPT"
    )
    library = compile_stub(tmp_path)
    gpus = in_real_time(library, [(0, 250)], [(0, 100)], origin_ns=time.monotonic_ns())
    with tree.drawing({"intel-rapl:0": 90, "intel-rapl:0:0": 12, "intel-rapl:1": 300}):
        ended = shell.melodi("doctor", "--json", **at(tree), **gpus)
        said = shell.melodi("doctor", **at(tree), **gpus)
    assert (ended.code, said.code) == (0, 0), ended.stderr
    found = json.loads(ended.stdout)
    assert [(one["name"], one["state"]) for one in found["collectors"]] == [
        ("nvml", "ok"),
        ("rapl", "ok"),
        ("hwmon", "ok"),
    ]
    domains = domains_of(found)
    watts = dict(zip(GPUS, (250, 100), strict=True))
    watts |= {"package:0": 90, "dram:0": 12, "psys:0": 300, CARD: 45}
    assert domains.keys() == watts.keys()
    for name, domain in domains.items():
        assert domain["mean_watts"] == pytest.approx(watts[name], rel=0.1)
        assert domain["scope"]
        assert domain["source"]
        assert f"{name}" in said.stdout
    for name in GPUS:
        assert domains[name]["refresh_seconds"] == pytest.approx(0.1, abs=0.02)
        assert domains[name]["source"] == "nvml:total_energy"
    assert 0 < domains["package:0"]["refresh_seconds"] < 0.05
    assert all(domains[name]["moving"] for name in watts if name != CARD)
    assert [name for name, domain in domains.items() if not domain["summable"]] == ["psys:0"]
    assert "GPUs, processors, memory" in said.stdout


def test_a_forbidden_counter_is_denied_with_the_exact_remedy(
    shell: Shell, tree: PowercapTree
) -> None:
    """The capability for the service, the group for the rest; the limit, open to all, is used."""
    for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        tree.forbid(zone)
    tree.limit("intel-rapl:0", 120)
    ended = subprocess.run(
        [MELODI, "doctor", "--json"],
        cwd="/",
        env=shell.environment | at(tree),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        preexec_fn=obey_file_modes,
    )
    assert ended.returncode == 1, ended.stderr
    found = json.loads(ended.stdout)
    rapl = next(one for one in found["collectors"] if one["name"] == "rapl")
    assert (rapl["state"], rapl["permission"]) == ("denied", "denied")
    assert "AmbientCapabilities=CAP_DAC_READ_SEARCH" in rapl["remedy"]
    assert "group powercap" in rapl["remedy"]
    assert "--group-add" in rapl["remedy"]
    assert domains_of(found)["package:0"]["estimated"]
    assert "24 and 120 W" in domains_of(found)["package:0"]["description"]


def test_what_may_not_be_added_measures_no_request(shell: Shell, tree: PowercapTree) -> None:
    """A platform's counter alone is shown, and the end is 1."""
    tree.remove("intel-rapl:0:0")
    tree.remove("intel-rapl:0")
    ended = shell.melodi("doctor", "--json", **at(tree))
    assert ended.code == 1
    found = json.loads(ended.stdout)
    assert found["measurable"] is False
    assert domains_of(found)["psys:0"]["summable"] is False


def test_on_a_machine_without_any_meter_it_says_so_to_a_newcomer(shell: Shell) -> None:
    """Nothing is broken; what records will say, and what to try instead."""
    (shell.folder / "sys").mkdir()
    ended = shell.melodi("doctor", MELODI_COLLECTORS__SYSFS_ROOT=str(shell.folder / "sys"))
    assert ended.code == 1
    assert "Nothing can be measured on this machine" in ended.stdout
    assert "NVIDIA GPU" in ended.stdout
    assert "`estimated`" in ended.stdout
    assert "melodi demo" in ended.stdout


def test_a_backend_is_shown_with_its_processes_and_its_gpus(shell: Shell, tmp_path: Path) -> None:
    """In words and as JSON; one that is not found comes with a remedy."""
    processes = tmp_path / "processes"
    with burning_server() as server:
        processes.write_text(f"1 {server.worker} 1000 50\n")
        gpus = in_real_time(
            compile_stub(tmp_path), [(0, 250)], [(0, 100)], origin_ns=0, processes=processes
        )
        (shell.folder / "melodi.toml").write_text(
            f'[collectors]\nuse = ["nvml"]\n'
            f'[[backends]]\nname = "b"\nkind = "openai"\nurl = "{server.url}"\n'
            '[[backends]]\nname = "gone"\nkind = "openai"\nurl = "http://127.0.0.1:9"\n'
            'process = "cgroup:/no-such-cgroup"\n'
        )
        said = shell.melodi("doctor", **gpus).stdout
        found = json.loads(shell.melodi("doctor", "--json", **gpus).stdout)
    here, gone = found["backends"]
    assert here["process"] | {"name": None, "cpu_time_from": None} == {
        "presence": "found",
        "found_by": "port",
        "pid": server.pid,
        "name": None,
        "cgroup": None,
        "count": 2,
        "gpus": GPUS[1:],
        "cpu_time_from": None,
        "reason": None,
        "remedy": None,
    }
    assert (here["domains"], here["domains_from"]) == (GPUS[1:], "processes")
    assert f"(pid {server.pid}), 1 more, found by port; CPU time of its" in said
    assert f"on: {GPUS[1]}" in said
    assert f"charged to: {GPUS[1]} (where its processes are)" in said
    assert (gone["domains"], gone["domains_from"]) == (GPUS, "assumed")
    assert gone["process"]["presence"] == "hidden"
    assert "there is no cgroup /no-such-cgroup" in said
    assert "to mend it: take the path after 0:: in /proc/PID/cgroup" in said
