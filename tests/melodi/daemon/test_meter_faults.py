"""What goes wrong with a meter is a gap in its own domain, in the ledger and in the records."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
from nvml_stub import Call, NvmlStub
from powercap_tree import PowercapTree
from virtual_host import GPU_WATTS, VirtualHost, virtual_host
from waiting import PATIENCE_SECONDS

from collectors.base import Readings
from melodi.energy.record import Quality
from melodi.store.books import LedgerLine

LOST = pynvml.NVML_ERROR_GPU_IS_LOST
WATTS = {"intel-rapl:0": 100.0, "intel-rapl:0:0": 20.0}
HOUR_NS = 3_600_000_000_000


@pytest.fixture
def host(tmp_path: Path, gpus: NvmlStub, tree: PowercapTree) -> Iterator[VirtualHost]:
    """A package, its memory and two GPUs, which have been measured for five seconds."""
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:0:0", "dram")
    with virtual_host(tmp_path, gpus=gpus, tree=tree, watts=dict(WATTS)) as one:
        one.run(5)
        yield one


def names(gpus: NvmlStub) -> dict[str, float]:
    """The true watts of every domain."""
    devices = {f"gpu:{gpus.uuid(device)}": float(w) for device, w in enumerate(GPU_WATTS)}
    return devices | {"package:0": 100.0, "dram:0": 20.0}


def check(
    host: VirtualHost, gpus: NvmlStub, *, hurt: set[str], seconds: float
) -> dict[str, LedgerLine]:
    """All that ran is measured to the joule, but for what says it is not; nothing is invented."""
    lines = host.ledger()
    passed = host.clock.monotonic_ns() / 1e9
    for name, watts in names(gpus).items():
        line = lines[name]
        if name not in hurt:
            assert line.unmeasured_seconds == 0
        else:
            assert line.unmeasured_seconds == pytest.approx(seconds, abs=0.3)
        # The first edge comes within two refreshes, and the last lies no further back.
        measured = watts * (passed - line.unmeasured_seconds)
        assert measured - 0.6 * watts <= line.measured_joules <= measured + 1e-6
    return lines


def test_a_gpu_that_is_lost_for_ten_seconds_leaves_one_long_bin(
    host: VirtualHost, gpus: NvmlStub
) -> None:
    """Its counter ran on, so its joules are known; the record of that time says `gap`."""
    before = host.request(2)
    host.run(1)
    gpus.lose_handles(device=1)
    gpus.fail(Call.UUID_LOOKUP, LOST, device=1)
    during = host.request(10)
    gpus.mend(Call.UUID_LOOKUP, device=1)
    host.run(20)
    after = host.request(2)
    host.run(2)
    host.close()
    assert host.runtime.sampler.faults == []
    check(host, gpus, hurt=set(), seconds=0)
    lost = f"gpu:{gpus.uuid(1)}"
    record = host.record(during)
    assert record.quality is Quality.GAP
    assert record.domains[lost].reasons == ("foreign_unknown", "stall")
    for name, energy in record.domains.items():
        assert name == lost or energy.quality is Quality.MEASURED
    assert record.energy_joules == pytest.approx(620 * 10, rel=0.02)
    for one in (before, after):
        assert host.record(one).quality is Quality.MEASURED


def test_a_gpu_that_comes_back_with_a_counter_of_zero_is_unmeasured_in_between(
    host: VirtualHost, gpus: NvmlStub
) -> None:
    """Seconds, not joules: of a request in that stretch only the other domains are known."""
    host.run(60)
    gpus.lose_handles(device=1)
    gpus.fail(Call.UUID_LOOKUP, LOST, device=1)
    during = host.request(10)
    gpus.mend(Call.UUID_LOOKUP, device=1)
    gpus.restart_counter(device=1)
    host.run(20)
    host.close()
    lost = f"gpu:{gpus.uuid(1)}"
    check(host, gpus, hurt={lost}, seconds=15.2)
    record = host.record(during)
    assert record.quality is Quality.NONE
    assert record.energy_joules is None
    assert record.domains[lost].joules is None
    assert "counter_reset" in record.domains[lost].reasons
    assert record.gpu_joules is None
    assert record.cpu_joules == pytest.approx(100 * 10, rel=0.02)


def test_a_driver_reload_costs_the_stretch_around_it(host: VirtualHost, gpus: NvmlStub) -> None:
    """Both counters fall to zero: a refresh or two is unmeasured, and nothing wraps."""
    timeline = host.begin()
    host.run(3)
    for device in range(2):
        gpus.restart_counter(device=device)
    host.run(3)
    host.end(timeline)
    host.run(5)
    host.close()
    devices = {f"gpu:{gpus.uuid(device)}" for device in range(2)}
    check(host, gpus, hurt=devices, seconds=0.15)
    record = host.record(timeline.id)
    assert record.quality is Quality.GAP
    assert "counter_reset" in record.quality_reasons
    assert record.energy_joules == pytest.approx(620 * 6, rel=0.06)
    assert record.high_joules is not None
    assert record.high_joules >= 620 * 6


def test_a_zone_that_turns_unreadable_hurts_no_other(
    host: VirtualHost, gpus: NvmlStub, tree: PowercapTree
) -> None:
    """It is a fault while it lasts; its counter ran on, so the stretch is one long bin."""
    del host.watts["intel-rapl:0:0"]
    tree.energy_file("intel-rapl:0:0").write_text("garbage\n")
    during = host.request(8)
    assert host.runtime.faults() == [
        "rapl: dram:0 cannot be read: dram:0: invalid literal for int() with base 10: b'garbage\\n'"
    ]
    host.watts["intel-rapl:0:0"] = 20.0
    host._drawn_uj["intel-rapl:0:0"] += 20.0 * 8e6
    host.run(5)
    assert host.runtime.faults() == []
    host.close()
    check(host, gpus, hurt=set(), seconds=0)
    record = host.record(during)
    assert record.domains["dram:0"].quality is Quality.GAP
    assert record.domains["package:0"].quality is Quality.MEASURED


def test_a_zone_that_vanishes_and_comes_back_under_another_index_is_found(
    host: VirtualHost, gpus: NvmlStub, tree: PowercapTree
) -> None:
    """Its counter began anew: what it used meanwhile is unmeasured, and no range is added."""
    tree.remove("intel-rapl:0:0")
    del host.watts["intel-rapl:0:0"]
    host.run(8)
    assert "dram:0" in host.runtime.faults()[0]
    tree.add("intel-rapl:0:1", "dram")
    host.watts["intel-rapl:0:1"] = 20.0
    host.run(5)
    assert host.runtime.faults() == []
    host.close()
    check(host, gpus, hurt={"dram:0"}, seconds=8.3)


def test_a_meter_that_hangs_for_half_a_minute_holds_up_no_other(
    host: VirtualHost, gpus: NvmlStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPUs' counters ran on; the processor is measured all the time, in bins of its own."""
    run = readers(host).pop("nvml")
    reader = run.reader
    stuck, goes_on, read = threading.Event(), threading.Event(), reader.collector.read

    def hanging() -> Readings:
        stuck.set()
        goes_on.wait(PATIENCE_SECONDS)
        return read()

    monkeypatch.setattr(reader.collector, "read", hanging)
    thread = threading.Thread(target=lambda: host.runtime.sampler._stations.take(reader.beat()))
    host.clock.advance(max(0, reader.deadline_ns - host.clock.monotonic_ns()))
    thread.start()
    assert stuck.wait(PATIENCE_SECONDS)
    during = host.request(30)
    assert host.runtime.faults() == ["nvml has not answered for 30 s"]
    goes_on.set()
    thread.join(10)
    readers(host)["nvml"] = run
    host.run(15)
    assert host.runtime.faults() == []
    host.close()
    check(host, gpus, hurt=set(), seconds=0)
    record = host.record(during)
    assert record.quality is Quality.GAP
    assert record.domains["package:0"].quality is Quality.MEASURED
    assert record.energy_joules == pytest.approx(620 * 30, rel=0.02)


@pytest.mark.parametrize("step_ns", [HOUR_NS, -HOUR_NS])
def test_a_wall_clock_that_is_set_changes_no_joule(
    host: VirtualHost, gpus: NvmlStub, step_ns: int
) -> None:
    """Arithmetic is in monotonic time: only the names of minutes and moments move."""
    timeline = host.begin()
    host.run(3)
    host.clock.step_wall(step_ns)
    host.run(3)
    host.end(timeline)
    host.run(5)
    host.close()
    check(host, gpus, hurt=set(), seconds=0)
    record = host.record(timeline.id)
    assert record.quality is Quality.MEASURED
    assert record.duration_seconds == pytest.approx(6, abs=0.1)
    assert record.energy_joules == pytest.approx(620 * 6, rel=0.02)


def test_a_suspended_machine_leaves_a_stretch_unmeasured_in_every_domain(
    host: VirtualHost, gpus: NvmlStub
) -> None:
    """What the counters show of the sleep is in no account, and the record says why."""
    timeline = host.begin()
    host.run(3)
    host.clock.suspend(HOUR_NS)
    for zone in WATTS:
        host._drawn_uj[zone] += 5_000_000
    host.run(3)
    host.end(timeline)
    host.run(5)
    host.close()
    check(host, gpus, hurt=set(names(gpus)), seconds=0.15)
    record = host.record(timeline.id)
    assert record.quality is Quality.GAP
    assert "suspended" in record.quality_reasons


def readers(host: VirtualHost) -> dict:
    return host.runtime.sampler._readers._runs
