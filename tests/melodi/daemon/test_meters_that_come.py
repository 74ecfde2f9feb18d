"""A running daemon takes up a meter that comes later; one that goes hurts no other."""

import asyncio
import json
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
from command import Shell
from nvml_stub import Call, NvmlStub, in_real_time
from powercap_tree import PowercapTree
from virtual_host import VirtualHost, virtual_host
from waiting import PATIENCE_SECONDS, wait_for

from collectors.registry import Probe, State
from melodi.clock import SystemClock
from melodi.energy.record import Quality
from melodi.sampling.plan import Plan
from melodi.sampling.settle import cuts_at, energies
from melodi.sampling.watch import MeterWatch

WATTS = {"intel-rapl:0": 100.0, "intel-rapl:0:0": 20.0}


@pytest.fixture
def host(tmp_path: Path, gpus: NvmlStub, tree: PowercapTree) -> Iterator[VirtualHost]:
    """A host where at first nothing can be measured but by an estimate."""
    gpus.fail(Call.INIT, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    with virtual_host(tmp_path, gpus=gpus, tree=tree, watts=dict(WATTS)) as one:
        one.run(3)
        yield one


def sources(host: VirtualHost) -> dict[str, str]:
    return {one["name"]: one["source"] for one in host.runtime.domains()}


def add_zones(tree: PowercapTree) -> None:
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:0:0", "dram")


def test_a_driver_that_is_loaded_later_brings_its_gpus_into_everything(
    host: VirtualHost, gpus: NvmlStub
) -> None:
    """Domains, backends, metrics, ledger and records; what began before keeps what it had."""
    early = host.begin()
    host.run(1)
    assert host.watch.look() is False
    gpus.mend(Call.INIT)
    assert host.watch.look() is True
    host.run(2)
    host.end(early)
    host.run(1)
    late = host.request(3)
    host.run(5)
    devices = {f"gpu:{gpus.uuid(device)}" for device in range(2)}
    assert sources(host) == dict.fromkeys(devices, "nvml:total_energy")
    assert set(host.runtime.backends_known.domains_of("b")) == devices
    assert host.runtime.faults() == []
    up = {
        name: host.runtime.registry.get_sample_value("melodi_collector_up", {"collector": name})
        for name in ("nvml", "estimate")
    }
    assert up == {"nvml": 1.0, "estimate": None}
    host.close()
    assert host.record(early.id).footprint == "cpu+dram"
    assert host.record(early.id).quality is Quality.ESTIMATED
    record = host.record(late)
    assert (record.footprint, record.quality) == ("gpu", Quality.MEASURED)
    assert record.energy_joules == pytest.approx(500 * 3, rel=0.05)
    lines = host.ledger()
    for device, watts in enumerate((300, 200)):
        line = lines[f"gpu:{gpus.uuid(device)}"]
        assert line.unmeasured_seconds == 0
        assert line.measured_joules == pytest.approx(watts * 11, rel=0.05)


def test_zones_that_appear_take_the_place_of_the_estimate(
    host: VirtualHost, tree: PowercapTree
) -> None:
    """The domain goes on by its name; between the two meters nobody knows, and it is said."""
    during = host.begin()
    host.run(2)
    add_zones(tree)
    assert host.watch.look() is True
    host.run(2)
    host.end(during)
    host.run(15)
    measured = host.request(4)
    host.run(5)
    assert sources(host) == {"package:0": "rapl:powercap", "dram:0": "rapl:powercap"}
    host.close()
    first = host.record(during.id)
    assert first.quality is Quality.ESTIMATED
    assert "meter_changed" in first.quality_reasons
    record = host.record(measured)
    assert (record.footprint, record.quality) == ("cpu+dram", Quality.MEASURED)
    assert record.energy_joules == pytest.approx(120 * 4, rel=0.05)
    line = host.ledger()["package:0"]
    assert 0 < line.unmeasured_seconds < 0.3
    assert host.runtime.books.idle_watts["package:0"] == pytest.approx(100, rel=0.02)


def test_a_zone_that_joins_an_open_meter_costs_the_others_nothing(
    host: VirtualHost, tree: PowercapTree
) -> None:
    """The counters of those that were there go on where they were, without a gap."""
    tree.add("intel-rapl:0", "package-0")
    assert host.watch.look() is True
    host.run(5)
    tree.add("intel-rapl:0:0", "dram")
    assert host.watch.look() is True
    request = host.request(3)
    host.run(12)
    assert host.watch.look() is False
    host.close()
    lines = host.ledger()
    # Before the zone nobody measured it: the estimate had gone, and is not in the request's bins.
    assert lines["dram:0"].unmeasured_seconds == pytest.approx(5, abs=0.3)
    assert lines["dram:0"].active_joules + lines["dram:0"].idle_share_joules == pytest.approx(
        20 * 3, rel=0.05
    )
    assert lines["package:0"].unmeasured_seconds < 0.3
    assert host.record(request).footprint == "cpu+dram"


def test_a_meter_that_goes_leaves_the_others_and_is_taken_up_again(
    host: VirtualHost, gpus: NvmlStub, tree: PowercapTree
) -> None:
    """A driver that is taken away is a fault of its own; back, its GPUs are measured as before."""
    gpus.mend(Call.INIT)
    add_zones(tree)
    host.watch.look()
    host.run(5)
    for device in range(2):
        gpus.lose_handles(device=device)
        gpus.fail(Call.UUID_LOOKUP, pynvml.NVML_ERROR_UNINITIALIZED, device=device)
    gone = host.request(5)
    assert host.watch.look() is False
    assert [one.split(":")[0] for one in host.runtime.faults()] == ["nvml"]
    for device in range(2):
        gpus.mend(Call.UUID_LOOKUP, device=device)
    host.run(60)
    assert host.runtime.faults() == []
    back = host.request(3)
    host.run(5)
    host.close()
    assert host.record(gone).quality is Quality.GAP
    assert host.record(gone).domains["package:0"].quality is Quality.MEASURED
    assert host.record(back).quality is Quality.MEASURED
    line = host.ledger()["package:0"]
    assert line.unmeasured_seconds < 0.2  # as the zone took the place of the estimate


def test_a_window_in_which_a_meter_came_does_not_know_that_domain(
    host: VirtualHost, gpus: NvmlStub
) -> None:
    """Its start was before the first reading: unknown, with the reason, and no error."""
    curves = host.runtime.sampler.curves
    gpus.mend(Call.INIT)
    starts = asyncio.run(cuts_at(dict(curves), host.clock.monotonic_ns() - 10**9))
    host.watch.look()
    host.run(5)
    ends = asyncio.run(cuts_at(curves, host.clock.monotonic_ns() - 10**9))
    found = energies(curves, starts, ends)
    gpu = found[f"gpu:{gpus.uuid(0)}"]
    assert gpu.joules is None
    assert gpu.reasons == ("before_first_edge",)


# ---- the thread that looks -----------------------------------------------------------------


class SlowPlan(Plan):
    """Looking hangs until told to go on, and then finds one meter."""

    asked = threading.Event()
    goes_on = threading.Event()
    closed = threading.Event()

    def probe_again(self, probes: Any, now_ns: Any) -> list[Probe]:
        self.asked.set()
        self.goes_on.wait(PATIENCE_SECONDS)

        class Meter:
            name = "rapl"
            domains = ()
            close = self.closed.set

        return [Probe(name="rapl", state=State.OK, collector=Meter())]  # type: ignore[arg-type]


def test_a_driver_that_hangs_is_not_waited_for_and_what_it_gives_late_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stop goes on without it; nobody is told of a meter that comes after the stop."""
    monkeypatch.setattr("melodi.sampling.watch.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("melodi.sampling.watch.STOP_SECONDS", 0.05)
    plan = SlowPlan(
        use="auto", sysfs_root=Path("/"), simulated_url=None, gpu_period_ns=1, other_period_ns=1
    )
    told: list[object] = []
    watch = MeterWatch(plan, [], clock=SystemClock(), on_change=told.append)
    watch.start()
    assert plan.asked.wait(PATIENCE_SECONDS)
    watch.stop()
    plan.goes_on.set()
    assert plan.closed.wait(PATIENCE_SECONDS)
    assert told == []


# ---- a real daemon -------------------------------------------------------------------------


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


@pytest.mark.parametrize("process", ["false", "true"])
def test_a_running_daemon_takes_up_a_driver_and_zones(
    tmp_path: Path,
    nvml_library: Path,
    tree: PowercapTree,
    monkeypatch: pytest.MonkeyPatch,
    process: str,
) -> None:
    """The driver's library and the zones appear; domains, hosts and doctor show them."""
    later = tmp_path / "driver"
    later.mkdir()
    for name, text in in_real_time(later / nvml_library.name, [(0, 300)]).items():
        monkeypatch.setenv(name, text)
    (tmp_path / "melodi.toml").write_text(
        f'[api]\nlisten = "127.0.0.1:0"\n[collectors]\nsysfs_root = "{tree.root}"\n'
        f"[sampling]\nprocess = {process}\n"
    )
    daemon = Shell(tmp_path).start("serve")
    try:
        api = next(line for line in daemon.stderr if line.startswith("api")).split()[1]

        def domains() -> dict[str, str]:
            return {one["name"]: one["source"] for one in ask(f"{api}/v1/domains")["items"]}

        assert {one.partition(":")[0] for one in domains().values()} == {"estimate"}
        add_zones(tree)
        with tree.drawing(WATTS):
            wait_for(lambda: domains().get("package:0") == "rapl:powercap")
            shutil.copy(nvml_library, later)
            wait_for(lambda: len(domains()) == 3)
            (gpu,) = domains().keys() - {"package:0", "dram:0"}
            wait_for(lambda: ask(f"{api}/v1/domains")["items"][-1]["mean_power_watts"])
            (host,) = ask(f"{api}/v1/hosts")["items"]
            assert gpu in host["inventory"]["domains"]
            states = {one["name"]: one["state"] for one in ask(f"{api}/v1/doctor")["collectors"]}
            assert states == {"nvml": "ok", "rapl": "ok", "hwmon": "absent"}
    finally:
        daemon.terminate()
        _, talk = daemon.communicate(timeout=PATIENCE_SECONDS)
    assert daemon.returncode == 0, talk
