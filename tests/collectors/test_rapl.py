"""The RAPL collector on powercap trees laid out as the kernel lays them out."""

from pathlib import Path

import pytest
from powercap_tree import EPYC_RANGE_UJ, INTEL_RANGE_UJ, PowercapTree, without_privilege

from collectors.base import Kind, Measure
from collectors.errors import NotPermitted, ReadFailed, Unavailable
from collectors.powercap import find_zones
from collectors.rapl import RaplCollector, absent
from collectors.surroundings import Surroundings, surroundings


class Time:
    """A clock that moves when slept or told to."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


def opened(tree: PowercapTree, time: Time | None = None) -> RaplCollector:
    time = time or Time()
    return RaplCollector(now_ns=time.now_ns, sysfs_root=tree.root, sleep=time.sleep)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def two_sockets(tree: PowercapTree) -> None:
    """Two Intel sockets whose indices are not in the order of their numbers, and a psys."""
    tree.add("intel-rapl:0", "package-1", energy_uj=1_000)
    tree.add("intel-rapl:0:0", "dram", energy_uj=100)
    tree.add("intel-rapl:0:1", "core", energy_uj=900)
    tree.add("intel-rapl:1", "psys", energy_uj=9_000)
    tree.add("intel-rapl:2", "package-0", energy_uj=2_000)
    tree.add("intel-rapl:2:0", "dram", energy_uj=200)
    tree.add("intel-rapl:2:1", "uncore", energy_uj=5)


def energies(collector: RaplCollector) -> dict[str, int | None]:
    values = collector.read().values
    found = {reading.domain: reading.energy_uj for reading in values}
    assert len(found) == len(values), "a domain was read twice"
    return found


# ---- which zone is what --------------------------------------------------------------------


def test_zones_are_believed_by_name_and_not_by_index(tree: PowercapTree) -> None:
    """Packages and their memory by socket number; psys is no CPU; cores and uncore left out."""
    two_sockets(tree)
    assert energies(opened(tree)) == {
        "package:1": 1_000,
        "dram:1": 100,
        "psys:0": 9_000,
        "package:0": 2_000,
        "dram:0": 200,
    }


def test_what_may_be_added_is_packages_and_memory(tree: PowercapTree) -> None:
    """psys contains the packages, so it is never summed."""
    two_sockets(tree)
    domains = {domain.name: domain for domain in opened(tree).domains}
    summable = {name for name, domain in domains.items() if domain.summable}
    assert summable == {"package:0", "package:1", "dram:0", "dram:1"}
    assert domains["psys:0"].kind is Kind.PLATFORM
    assert domains["dram:0"].kind is Kind.DRAM
    assert {domain.measure for domain in domains.values()} == {Measure.COUNTER}
    assert domains["package:0"].range_uj == INTEL_RANGE_UJ
    assert domains["package:0"].source == "rapl:powercap"


def test_an_amd_tree_without_memory_is_complete(tree: PowercapTree) -> None:
    """AMD has a package and cores and no dram; that is all there is to read."""
    tree.add("intel-rapl:0", "package-0", energy_uj=7, range_uj=EPYC_RANGE_UJ)
    tree.add("intel-rapl:0:0", "core", energy_uj=3, range_uj=EPYC_RANGE_UJ)
    assert energies(opened(tree)) == {"package:0": 7}


def test_what_mmio_repeats_counts_once_by_msr(tree: PowercapTree) -> None:
    """The same package behind two control types is one domain, read through the MSR."""
    tree.add("intel-rapl-mmio:0", "package-0", energy_uj=222)
    tree.add("intel-rapl-mmio:0:0", "dram", energy_uj=22)
    tree.add("intel-rapl:0", "package-0", energy_uj=111)
    assert energies(opened(tree)) == {"package:0": 111, "dram:0": 22}


def test_dies_that_mirror_one_counter_are_one_package(tree: PowercapTree) -> None:
    """Two dies that show the socket's counter are 68 W, not 137."""
    for die in (0, 1):
        tree.add(f"intel-rapl:{die}", f"package-0-die-{die}", energy_uj=5_000_000)
    before = open_descriptors()
    collector = opened(tree)
    assert open_descriptors() == before + 1
    assert energies(collector) == {"package:0": 5_000_000}
    assert "dies" in collector.domains[0].description


def test_memories_of_dies_that_mirror_one_counter_are_one_memory(tree: PowercapTree) -> None:
    """What holds for the packages of dies holds for their memory."""
    for die in (0, 1):
        tree.add(f"intel-rapl:{die}", f"package-0-die-{die}", energy_uj=5_000_000)
        tree.add(f"intel-rapl:{die}:0", "dram", energy_uj=70_000)
    assert energies(opened(tree)) == {"package:0": 5_000_000, "dram:0": 70_000}


def test_dies_with_counters_of_their_own_are_all_kept(tree: PowercapTree) -> None:
    """Dies that differ, each with its memory, add up."""
    for die in (0, 1):
        tree.add(f"intel-rapl:{die}", f"package-0-die-{die}", energy_uj=5_000_000 + 70_000 * die)
        tree.add(f"intel-rapl:{die}:0", "dram", energy_uj=10 + die)
    assert energies(opened(tree)) == {
        "package:0-die:0": 5_000_000,
        "dram:0-die:0": 10,
        "package:0-die:1": 5_070_000,
        "dram:0-die:1": 11,
    }


def test_dies_that_agree_once_by_chance_are_told_apart_by_their_increments(
    tree: PowercapTree,
) -> None:
    """Equal readings are not enough: the counters must move together."""
    for die in (0, 1):
        tree.add(f"intel-rapl:{die}", f"package-0-die-{die}", energy_uj=5_000_000)
    time = Time()

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        tree.set("intel-rapl:0", 6_000_000)
        tree.set("intel-rapl:1", 5_500_000)

    collector = RaplCollector(now_ns=time.now_ns, sysfs_root=tree.root, sleep=sleep)
    assert energies(collector) == {"package:0-die:0": 6_000_000, "package:0-die:1": 5_500_000}


def test_packages_that_happen_to_agree_are_never_merged(tree: PowercapTree) -> None:
    """Two sockets stay two domains even at the same reading."""
    tree.add("intel-rapl:0", "package-0", energy_uj=5)
    tree.add("intel-rapl:1", "package-1", energy_uj=5)
    assert set(energies(opened(tree))) == {"package:0", "package:1"}


def test_a_container_with_the_devices_alone_is_read(tree: PowercapTree) -> None:
    """Only /sys/devices/virtual/powercap mounted, under another prefix, is enough."""
    two_sockets(tree)
    for link in (tree.root / "class/powercap").iterdir():
        link.unlink()
    assert len(find_zones(tree.root)) == 5


def test_a_container_with_the_class_alone_is_read(tmp_path: Path) -> None:
    """The zones mounted below class/ of another prefix, and no devices, are enough too."""
    zone = tmp_path / "class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for file, content in (("name", "package-0"), ("energy_uj", "7")):
        (zone / file).write_text(content)
    collector = RaplCollector(now_ns=lambda: 0, sysfs_root=tmp_path)
    assert energies(collector) == {"package:0": 7}
    collector.close()


def test_a_host_without_zones_is_unavailable(tmp_path: Path) -> None:
    """No powercap at all is absence, with what to do."""
    with pytest.raises(Unavailable) as caught:
        RaplCollector(now_ns=lambda: 0, sysfs_root=tmp_path)
    assert caught.value.remedy == absent(surroundings())


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (Surroundings(), "modprobe intel_rapl_msr"),
        (Surroundings(container=True), "--volume /sys/devices/virtual/powercap:/host/sys"),
        (Surroundings(container=True, virtual_machine=True), "nothing to do"),
        (Surroundings(arm=True), "hwmon"),
    ],
)
def test_what_to_do_about_missing_zones_depends_on_where_one_is(
    where: Surroundings, words: str
) -> None:
    """A module on metal, a mount in a container, nothing in a virtual machine or on Arm."""
    assert words in absent(where)


# ---- access --------------------------------------------------------------------------------


def test_a_refusal_names_the_capability_and_the_group_and_never_opens_it_to_all(
    tree: PowercapTree,
) -> None:
    """The remedy grants one process or one group energy_uj alone, and no `chmod -R`."""
    tree.add("intel-rapl:0", "package-0")
    tree.forbid("intel-rapl:0")
    with without_privilege(), pytest.raises(NotPermitted) as caught:
        opened(tree)
    remedy = str(caught.value.remedy)
    assert "AmbientCapabilities=CAP_DAC_READ_SEARCH" in remedy
    assert "0440" in remedy
    assert "powercap" in remedy
    assert "chmod" not in remedy


def test_zones_that_may_be_read_are_read_and_the_others_are_said(tree: PowercapTree) -> None:
    """One forbidden zone does not hide the rest, and does not become 0."""
    tree.add("intel-rapl:0", "package-0", energy_uj=7)
    tree.add("intel-rapl:0:0", "dram", energy_uj=3)
    tree.energy_file("intel-rapl:0").chmod(0o444)
    tree.forbid("intel-rapl:0:0")
    with without_privilege():
        collector = opened(tree)
    assert energies(collector) == {"package:0": 7}
    (error,) = collector.unproven
    assert isinstance(error, NotPermitted)
    assert "dram:0" in error.reason


# ---- what goes wrong while running ---------------------------------------------------------


def test_the_counter_is_read_through_one_descriptor_held_open(tree: PowercapTree) -> None:
    """Fifty reads open nothing, and closing gives back every descriptor."""
    two_sockets(tree)
    before = open_descriptors()
    collector = opened(tree)
    assert open_descriptors() == before + 5
    for energy_uj in range(1_000, 1_050):
        tree.set("intel-rapl:0", energy_uj)
        assert energies(collector)["package:1"] == energy_uj
    assert open_descriptors() == before + 5
    collector.close()
    collector.close()
    assert open_descriptors() == before


def test_an_input_output_error_is_a_failure_of_one_domain_and_never_zero(
    tree: PowercapTree,
) -> None:
    """EIO from one zone leaves the others' readings, and the zone is opened again."""
    two_sockets(tree)
    time = Time()
    collector = opened(tree, time)
    tree.break_open_files("intel-rapl:2")
    readings = collector.read()
    assert [failure.domain for failure in readings.failures] == ["package:0"]
    assert "Input/output error" in str(readings.failures[0].error)
    assert "package:0" not in {reading.domain for reading in readings.values}
    time.sleep(1)
    assert energies(collector)["package:0"] == 2_000


def test_a_zone_that_vanished_is_found_again_under_another_index(tree: PowercapTree) -> None:
    """Hot-plug renumbers zones; the package comes back by its name, looked for once a second."""
    two_sockets(tree)
    time = Time()
    collector = opened(tree, time)
    tree.remove("intel-rapl:2")
    assert collector.read().failures[0].domain == "package:0"
    collector.read()
    tree.add("intel-rapl:7", "package-0", energy_uj=77)
    assert "package:0" not in energies(collector)
    time.sleep(1)
    assert energies(collector)["package:0"] == 77


def test_when_no_zone_can_be_read_the_pass_fails(tree: PowercapTree) -> None:
    """Nothing read at all is an error of the pass, not an empty success."""
    tree.add("intel-rapl:0", "package-0", energy_uj=7)
    collector = opened(tree)
    tree.remove("intel-rapl:0")
    with pytest.raises(ReadFailed, match="package:0"):
        collector.read()


def test_a_value_that_is_no_number_is_a_failure(tree: PowercapTree) -> None:
    """An empty or garbled file is never taken for 0."""
    tree.add("intel-rapl:0", "package-0", energy_uj=7)
    collector = opened(tree)
    tree.energy_file("intel-rapl:0").write_text("")
    with pytest.raises(ReadFailed):
        collector.read()


def test_zones_that_all_fail_at_the_start_may_be_tried_again(tree: PowercapTree) -> None:
    """Readable files without numbers are a failure, neither absence nor refusal."""
    tree.add("intel-rapl:0", "package-0")
    tree.energy_file("intel-rapl:0").write_text("")
    with pytest.raises(ReadFailed):
        opened(tree)


def test_a_zone_without_a_range_never_wraps(tree: PowercapTree) -> None:
    """A range of 0 is an unknown range."""
    tree.add("intel-rapl:0", "package-0", range_uj=0)
    assert opened(tree).domains[0].range_uj is None


def test_a_reading_lies_in_the_middle_of_its_time(tree: PowercapTree) -> None:
    """The time of a reading is halfway through it, and its half-width says how sharp that is."""
    tree.add("intel-rapl:0", "package-0", energy_uj=7)
    ticks = iter(range(0, 1_000, 10))
    collector = RaplCollector(now_ns=lambda: next(ticks), sysfs_root=tree.root)
    (reading,) = collector.read().values
    assert (reading.at_ns % 10, reading.half_width_ns) == (5, 5)
