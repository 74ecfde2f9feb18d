"""The hwmon collector on trees laid out as the kernel's drivers lay them out."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hwmon_tree import HwmonTree
from powercap_tree import without_privilege

from collectors.base import Domain, Kind, Measure
from collectors.errors import NotPermitted, ReadFailed, Unavailable
from collectors.hwmon import HwmonCollector

CARD = "0000:03:00.0"


class Time:
    """A clock that moves when told to."""

    ns = 0

    def now_ns(self) -> int:
        return self.ns


@pytest.fixture
def hwmon() -> Iterator[HwmonTree]:
    """An empty tree in a folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield HwmonTree(Path(folder))


def opened(tree: HwmonTree, time: Time | None = None) -> HwmonCollector:
    return HwmonCollector(now_ns=(time or Time()).now_ns, sysfs_root=tree.root)


def values(collector: HwmonCollector) -> dict[str, int | None]:
    """Microjoules of counters, microwatts of gauges."""
    return {
        one.domain: one.power_uw if one.energy_uj is None else one.energy_uj
        for one in collector.read().values
    }


def domains(tree: HwmonTree) -> dict[str, Domain]:
    collector = opened(tree)
    found = {domain.name: domain for domain in collector.domains}
    collector.close()
    return found


def grace_hopper(tree: HwmonTree) -> None:
    """One module as its firmware tells it."""
    tree.add_acpi(1, "Module Power Socket 0", 500_000_000)
    tree.add_acpi(2, "Grace Power Socket 0", 150_000_000, power1_average_interval=50)
    tree.add_acpi(3, "CPU Power Socket 0", 120_000_000)
    tree.add_acpi(4, "SysIO Power Socket 0", 10_000_000)


# ---- which channel is what -----------------------------------------------------------------


def test_a_grace_socket_is_a_cpu_and_its_module_is_not_added(hwmon: HwmonTree) -> None:
    """The socket alone may be added: its rails lie inside it, and the module holds the GPU too."""
    grace_hopper(hwmon)
    found = domains(hwmon)
    grace = found["hwmon:power-meter-grace-power-socket-0"]
    module = found["hwmon:power-meter-module-power-socket-0"]
    assert (grace.kind, grace.measure, grace.refresh_ns) == (Kind.CPU, Measure.GAUGE, 50_000_000)
    assert (grace.source, grace.scope) == ("hwmon:power_average", "grace")
    assert grace.lag_ns == 25_000_000
    assert (module.kind, module.summable) == (Kind.PLATFORM, False)
    assert [name for name, domain in found.items() if domain.summable] == [grace.name]
    for rail in ("cpu", "sysio"):
        assert found[f"hwmon:power-meter-{rail}-power-socket-0"].part_of == grace.name
    assert values(opened(hwmon))[grace.name] == 150_000_000


def test_two_grace_sockets_are_two_domains_with_rails_of_their_own(hwmon: HwmonTree) -> None:
    """A rail belongs to the socket of its number."""
    for socket in (0, 1):
        hwmon.add_acpi(2 * socket, f"Grace Power Socket {socket}", 1)
        hwmon.add_acpi(2 * socket + 1, f"CPU Power Socket {socket}", 1)
    found = domains(hwmon)
    for socket in (0, 1):
        rail = found[f"hwmon:power-meter-cpu-power-socket-{socket}"]
        assert rail.part_of == f"hwmon:power-meter-grace-power-socket-{socket}"
    assert sum(domain.summable for domain in found.values()) == 2


@pytest.mark.parametrize("attribute", ["power1_average", "power1_input"])
def test_an_amd_gpu_is_a_gauge_by_either_of_its_files(hwmon: HwmonTree, attribute: str) -> None:
    """Older drivers give a mean, newer ones the power now; both in microwatts."""
    files = {attribute: 90_000_000, "power1_label": "PPT", "power1_cap_max": 300_000_000}
    hwmon.add(0, "amdgpu", CARD, **files)
    (domain,) = domains(hwmon).values()
    assert domain.name == f"hwmon:amdgpu-{CARD}-ppt"
    assert (domain.kind, domain.summable) == (Kind.GPU, True)
    assert domain.source == f"hwmon:{attribute.replace('1', '')}"
    assert domain.max_power_watts == pytest.approx(330)
    assert values(opened(hwmon)) == {domain.name: 90_000_000}


def test_power_now_is_preferred_to_a_mean_and_energy_to_both(hwmon: HwmonTree) -> None:
    """One channel is one domain, by the best that it tells."""
    hwmon.add(0, "amdgpu", CARD, power1_average=1, power1_input=2)
    hwmon.add(1, "xe", "0000:04:00.0", power1_average=1, power1_input=2, energy1_input=3)
    assert sorted(domain.source for domain in domains(hwmon).values()) == [
        "hwmon:energy_input",
        "hwmon:power_input",
    ]


def test_an_unlabelled_xe_is_a_counter_of_its_card(hwmon: HwmonTree) -> None:
    """Microjoules, as the file gives them, that never wrap."""
    hwmon.add(0, "xe", CARD, energy1_input=123_456_789_012)
    (domain,) = domains(hwmon).values()
    assert (domain.kind, domain.measure, domain.range_uj) == (Kind.GPU, Measure.COUNTER, None)
    assert domain.summable
    assert values(opened(hwmon)) == {domain.name: 123_456_789_012}


def test_the_package_of_an_xe_is_added_only_where_its_card_is_not(hwmon: HwmonTree) -> None:
    """The card contains its own package, and no other card's."""
    both = {"energy1_label": "card", "energy1_input": 9, "energy2_input": 7, "energy2_label": "pkg"}
    hwmon.add(0, "xe", CARD, **both)
    hwmon.add(1, "xe", "0000:04:00.0", energy2_input=5, energy2_label="pkg")
    found = domains(hwmon)
    assert found[f"hwmon:xe-{CARD}-pkg"].part_of == f"hwmon:xe-{CARD}-card"
    assert {name for name, domain in found.items() if domain.summable} == {
        f"hwmon:xe-{CARD}-card",
        "hwmon:xe-0000:04:00.0-pkg",
    }


def test_the_tiles_of_an_i915_lie_inside_it(hwmon: HwmonTree) -> None:
    """The chip for the card contains those for its tiles."""
    for number, chip in enumerate(["i915", "i915_gt0", "i915_gt1"]):
        hwmon.add(number, chip, CARD, energy1_input=5)
    found = domains(hwmon)
    assert [name for name, domain in found.items() if domain.summable] == [
        f"hwmon:i915-{CARD}-energy1"
    ]
    assert {domain.kind for domain in found.values()} == {Kind.GPU}


def test_an_unknown_chip_is_read_and_never_added(hwmon: HwmonTree) -> None:
    """Nobody knows what a board's own sensor contains."""
    hwmon.add(0, "ina238", "7-0040", power1_input=5, update_interval=200, temp1_input=40)
    (domain,) = domains(hwmon).values()
    assert domain.name == "hwmon:ina238-7-0040-power1"
    assert (domain.kind, domain.summable) == (Kind.PLATFORM, False)
    assert domain.refresh_ns == 200_000_000


def test_equal_cards_are_told_apart_by_their_slot_whatever_their_number(hwmon: HwmonTree) -> None:
    """After a reboot that numbers chips anew each name still means the same card."""
    hwmon.add(3, "amdgpu", CARD, power1_input=1, power1_label="PPT")
    hwmon.add(7, "amdgpu", "0000:83:00.0", power1_input=2, power1_label="PPT")
    before = values(opened(hwmon))
    hwmon.remove(3)
    hwmon.remove(7)
    hwmon.add(9, "amdgpu", CARD, power1_input=1, power1_label="PPT")
    hwmon.add(0, "amdgpu", "0000:83:00.0", power1_input=2, power1_label="PPT")
    assert len(before) == 2
    assert values(opened(hwmon)) == before


def test_sensors_that_nothing_tells_apart_are_left_out_with_a_reason(hwmon: HwmonTree) -> None:
    """A name that meant another sensor after a reboot would be worse than none."""
    hwmon.add_acpi(0, "Board", 1)
    hwmon.add_acpi(1, "Board", 2)
    hwmon.add_acpi(2, "Grace Power Socket 0", 3)
    collector = opened(hwmon)
    assert values(collector) == {"hwmon:power-meter-grace-power-socket-0": 3}
    assert "several" in collector.unproven[0].reason


# ---- what goes wrong -----------------------------------------------------------------------


def test_a_tree_without_power_is_absent(hwmon: HwmonTree) -> None:
    """Temperatures alone make no meter; the remedy names the drivers."""
    hwmon.add(0, "coretemp", "coretemp.0", temp1_input=40_000)
    with pytest.raises(Unavailable) as caught:
        opened(hwmon)
    assert "amdgpu" in str(caught.value.remedy)


def test_an_unreadable_channel_is_denied_with_a_remedy_and_the_others_go_on(
    hwmon: HwmonTree,
) -> None:
    """Alone it denies the collector; beside others it is told apart from them."""
    folder = hwmon.add(0, "amdgpu", CARD, power1_input=1)
    (folder / "power1_input").chmod(0)
    with without_privilege(), pytest.raises(NotPermitted) as caught:
        opened(hwmon)
    assert "CAP_DAC_READ_SEARCH" in str(caught.value.remedy)
    hwmon.add(1, "xe", "0000:04:00.0", energy1_input=5)
    with without_privilege():
        collector = opened(hwmon)
    assert len(collector.domains) == 1
    assert isinstance(collector.unproven[0], NotPermitted)


@pytest.mark.parametrize("content", ["", "N/A", "-5"])
def test_what_is_no_number_is_no_reading(hwmon: HwmonTree, content: str) -> None:
    """Neither nothing, nor words, nor less than nothing becomes power."""
    hwmon.add(0, "amdgpu", CARD, power1_input=content)
    with pytest.raises(ReadFailed):
        opened(hwmon)


def test_a_vanished_chip_is_one_failure_and_found_again_under_another_number(
    hwmon: HwmonTree,
) -> None:
    """The rest goes on; a second later the same card is read under its new number."""
    time = Time()
    hwmon.add(0, "amdgpu", CARD, power1_input=1)
    hwmon.add(1, "xe", "0000:04:00.0", energy1_input=5)
    collector = opened(hwmon, time)
    card, other = f"hwmon:amdgpu-{CARD}-power1", "hwmon:xe-0000:04:00.0-energy1"
    hwmon.remove(0)
    for _ in range(2):
        readings = collector.read()
        assert [one.domain for one in readings.values] == [other]
        assert [one.domain for one in readings.failures] == [card]
        time.ns += 1_100_000_000
    hwmon.add(5, "amdgpu", CARD, power1_input=8)
    assert values(collector) == {card: 8, other: 5}


def test_when_all_is_gone_the_pass_fails_and_nothing_stays_open(hwmon: HwmonTree) -> None:
    """No stale value is served, and no descriptor leaks."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    hwmon.add(0, "amdgpu", CARD, power1_input=1)
    collector = opened(hwmon)
    hwmon.remove(0)
    with pytest.raises(ReadFailed):
        collector.read()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
