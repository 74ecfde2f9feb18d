"""Which collectors a host has, said for each with the reason and the remedy where not."""

import time
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
from hwmon_tree import HwmonTree
from nvml_stub import Call, NvmlStub, installed
from power_server import power_server
from powercap_tree import PowercapTree, without_privilege

from collectors.registry import COLLECTORS, Probe, State, probe, probe_again


@pytest.fixture
def no_gpu(nvml_library: Path) -> Iterator[NvmlStub]:
    """A driver that sees no GPU, whatever this machine has."""
    with installed(nvml_library, devices=0) as stub:
        yield stub


def states(probes: list[Probe]) -> dict[str, State]:
    for found in probes:
        if found.collector is not None:
            found.collector.close()
    return {found.name: found.state for found in probes}


def test_auto_opens_what_is_there_and_no_estimate(stub: NvmlStub, tree: PowercapTree) -> None:
    """With real meters for GPU and CPU nothing is guessed."""
    tree.add("intel-rapl:0", "package-0")
    probes = probe("auto", now_ns=stub.now_ns, sysfs_root=tree.root)
    assert [domain.name for found in probes for domain in found.domains] == [
        f"gpu:{stub.uuid()}",
        "package:0",
    ]
    assert states(probes) == {"nvml": State.OK, "rapl": State.OK, "hwmon": State.ABSENT}


def test_auto_estimates_only_where_nothing_can_be_opened(
    no_gpu: NvmlStub, tree: PowercapTree
) -> None:
    """A host without any meter gets the estimate, beside why the meters are missing."""
    probes = probe("auto", now_ns=time.monotonic_ns, sysfs_root=tree.root)
    assert all(found.reason and found.remedy for found in probes[:3])
    assert probes[3].domains[0].estimated
    assert states(probes) == {
        "nvml": State.ABSENT,
        "rapl": State.ABSENT,
        "hwmon": State.ABSENT,
        "estimate": State.OK,
    }


def test_one_meter_is_enough_to_need_no_estimate(stub: NvmlStub, tmp_path: Path) -> None:
    """A GPU alone is measured, and its CPU stays unknown rather than guessed."""
    probes = probe("auto", now_ns=stub.now_ns, sysfs_root=tmp_path)
    absent = dict.fromkeys(["rapl", "hwmon"], State.ABSENT)
    assert states(probes) == {"nvml": State.OK} | absent


def test_auto_reads_a_simulator_only_where_a_url_is_given(no_gpu: NvmlStub, tmp_path: Path) -> None:
    """The simulator's domains come in by its URL and stand as a meter."""
    with power_server() as server:
        probes = probe(
            "auto", now_ns=time.monotonic_ns, sysfs_root=tmp_path, simulated_url=server.url
        )
        found = states(probes)
    absent = dict.fromkeys(["nvml", "rapl", "hwmon"], State.ABSENT)
    assert found == absent | {"simulated": State.OK}


def test_denied_and_failing_are_told_from_absent(stub: NvmlStub, tree: PowercapTree) -> None:
    """A lost GPU is failing, a forbidden zone denied; each says what to do."""
    for call in (Call.ENERGY, Call.INSTANT_GPU, Call.AVERAGE, Call.USAGE):
        stub.fail(call, pynvml.NVML_ERROR_GPU_IS_LOST)
    tree.add("intel-rapl:0", "package-0")
    tree.forbid("intel-rapl:0")
    with without_privilege():
        probes = probe(["nvml", "rapl"], now_ns=stub.now_ns, sysfs_root=tree.root)
    assert all(found.reason and found.remedy for found in probes)
    assert states(probes) == {"nvml": State.FAILING, "rapl": State.DENIED}


def test_an_ok_collector_says_which_of_its_domains_are_missing(nvml_library: Path) -> None:
    """One lost GPU of two does not go unsaid."""
    with installed(nvml_library, devices=2) as stub:
        stub.fail(Call.HANDLE, pynvml.NVML_ERROR_GPU_IS_LOST, device=1)
        probes = probe("nvml", now_ns=stub.now_ns)
        assert states(probes) == {"nvml": State.OK}
        assert "GPU 1" in str(probes[0].reason)


def test_only_what_is_named_is_tried(no_gpu: NvmlStub, tree: PowercapTree) -> None:
    """A list is taken literally, in its order, each name once."""
    tree.add("intel-rapl:0", "psys")
    probes = probe(["estimate", "rapl", "estimate"], now_ns=time.monotonic_ns, sysfs_root=tree.root)
    assert [found.name for found in probes] == ["estimate", "rapl"]
    assert set(states(probes).values()) == {State.OK}
    assert no_gpu.calls(Call.INIT) == 0


def test_a_simulator_named_without_a_url_is_absent_with_a_reason() -> None:
    """Naming it is not enough; the remedy is to set its URL."""
    (found,) = probe(["simulated"], now_ns=time.monotonic_ns)
    assert (found.state, found.domains) == (State.ABSENT, ())
    assert "URL" in str(found.reason)


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    """A typing mistake is told from an absent meter before anything is opened."""
    with pytest.raises(ValueError, match="nvlm") as caught:
        probe(["estimate", "nvlm"], now_ns=time.monotonic_ns)
    assert all(name in str(caught.value) for name in COLLECTORS)


# ---- what overlaps -------------------------------------------------------------------------


def summable(probes: list[Probe]) -> list[str]:
    return [one.name for found in probes for one in found.domains if one.summable]


def test_two_meters_of_one_domain_are_refused(tree: PowercapTree) -> None:
    """An estimate beside the counter of the same package would be added to it, or replace it."""
    tree.add("intel-rapl:0", "package-0")
    probes = probe(["rapl", "estimate"], now_ns=time.monotonic_ns, sysfs_root=tree.root)
    assert "package:0 is measured by rapl" in str(probes[1].reason)
    assert states(probes) == {"rapl": State.OK, "estimate": State.FAILING}


@pytest.mark.parametrize("order", [["nvml", "hwmon"], ["hwmon", "nvml"]])
def test_a_superchips_gpu_counter_leaves_its_cpu_out_of_sums(
    stub: NvmlStub, tmp_path: Path, order: list[str]
) -> None:
    """The module's counter holds the Grace socket, whichever of the two was opened first."""
    HwmonTree(tmp_path).add_acpi(0, "Grace Power Socket 0", 150_000_000)
    grace = "hwmon:power-meter-grace-power-socket-0"
    apart = probe(order, now_ns=stub.now_ns, sysfs_root=tmp_path)
    assert sorted(summable(apart)) == sorted([f"gpu:{stub.uuid()}", grace])
    states(apart)
    stub.mend(Call.INSTANT_MODULE)
    together = probe(order, now_ns=stub.now_ns, sysfs_root=tmp_path)
    assert summable(together) == [f"gpu:{stub.uuid()}"]
    hwmon = next(found.collector for found in together if found.name == "hwmon")
    assert hwmon is not None
    assert [reading.power_uw for reading in hwmon.read().values] == [150_000_000]
    states(together)


def test_an_amd_gpu_beside_an_nvidia_one_counts_too(stub: NvmlStub, tmp_path: Path) -> None:
    """Two cards are two domains of one sum."""
    HwmonTree(tmp_path).add(0, "amdgpu", "0000:03:00.0", power1_input=5)
    probes = probe("auto", now_ns=stub.now_ns, sysfs_root=tmp_path)
    assert len(summable(probes)) == 2
    assert states(probes)["hwmon"] is State.OK


def test_a_board_sensor_alone_leaves_room_for_the_estimate(
    no_gpu: NvmlStub, tmp_path: Path
) -> None:
    """What cannot be added measures no request, so the CPU is still guessed at."""
    HwmonTree(tmp_path).add(0, "ina238", "7-0040", power1_input=5)
    probes = probe("auto", now_ns=time.monotonic_ns, sysfs_root=tmp_path)
    assert summable(probes) == ["package:0", "dram:0"]
    assert states(probes)["estimate"] is State.OK


# ---- trying again --------------------------------------------------------------------------


def again(before: list[Probe], tree: PowercapTree, use: str | list[str] = "auto") -> list[Probe]:
    return probe_again(before, use=use, now_ns=time.monotonic_ns, sysfs_root=tree.root)


def test_a_driver_that_comes_later_is_found_and_open_meters_are_left_alone(
    stub: NvmlStub, tree: PowercapTree
) -> None:
    """What was missing is open, and an open collector is the very same object."""
    tree.add("intel-rapl:0", "package-0")
    stub.fail(Call.INIT, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    before = probe("auto", now_ns=stub.now_ns, sysfs_root=tree.root)
    stub.mend(Call.INIT)
    after = again(before, tree)
    assert [found.name for found in after] == [found.name for found in before]
    assert after[1] is before[1]
    assert before[0].state is State.ABSENT
    assert states(after) == {"nvml": State.OK, "rapl": State.OK, "hwmon": State.ABSENT}


def test_the_estimate_makes_room_for_a_sensor_that_comes_later(
    no_gpu: NvmlStub, tree: PowercapTree
) -> None:
    """It is left out, for its holder to close; before that nothing changes."""
    before = probe("auto", now_ns=time.monotonic_ns, sysfs_root=tree.root)
    assert again(before, tree)[-1] is before[-1]
    tree.add("intel-rapl:0", "package-0")
    after = again(before, tree)
    assert [(one.name, one.estimated) for found in after for one in found.domains] == [
        ("package:0", False)
    ]
    assert "estimate" not in states(after)
    states(before)


def test_an_estimate_that_was_asked_for_keeps_its_domain(tree: PowercapTree) -> None:
    """Named in the settings, it is not pulled from under anyone; the sensor says why it waits."""
    use = ["estimate", "rapl"]
    before = probe(use, now_ns=time.monotonic_ns, sysfs_root=tree.root)
    tree.add("intel-rapl:0", "package-0")
    after = again(before, tree, use)
    assert after[0] is before[0]
    assert "restart" in str(after[1].remedy)
    assert states(after)["rapl"] is State.FAILING


def test_a_zone_that_comes_later_joins_those_that_are_open(tree: PowercapTree) -> None:
    """A new collector has them all; the old one still reads, until its holder closes it."""
    tree.add("intel-rapl:0", "package-0")
    before = probe(["rapl"], now_ns=time.monotonic_ns, sysfs_root=tree.root)
    assert again(before, tree, ["rapl"])[0] is before[0]
    tree.add("intel-rapl:0:0", "dram")
    after = again(before, tree, ["rapl"])
    assert [one.name for one in after[0].domains] == ["package:0", "dram:0"]
    assert before[0].collector is not None
    assert len(before[0].collector.read().values) == 1
    states(before)
    states(after)


def test_what_has_vanished_is_waited_for_by_the_collector_that_had_it(tree: PowercapTree) -> None:
    """Fewer domains than before are no reason to open a collector anew."""
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:1", "package-1")
    before = probe(["rapl"], now_ns=time.monotonic_ns, sysfs_root=tree.root)
    tree.remove("intel-rapl:1")
    tree.add("intel-rapl:0:0", "dram")
    assert again(before, tree, ["rapl"])[0] is before[0]
    states(before)
