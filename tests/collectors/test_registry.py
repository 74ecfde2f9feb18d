"""Which collectors a host has, said for each with the reason and the remedy where not."""

import time
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
from nvml_stub import Call, NvmlStub, installed
from power_server import power_server
from powercap_tree import PowercapTree, without_privilege

from collectors.registry import COLLECTORS, Probe, State, probe


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
    assert states(probes) == {"nvml": State.OK, "rapl": State.OK}


def test_auto_estimates_only_where_nothing_can_be_opened(
    no_gpu: NvmlStub, tree: PowercapTree
) -> None:
    """A host without any meter gets the estimate, beside why the meters are missing."""
    probes = probe("auto", now_ns=time.monotonic_ns, sysfs_root=tree.root)
    assert all(found.reason and found.remedy for found in probes[:2])
    assert probes[2].domains[0].estimated
    assert states(probes) == {
        "nvml": State.ABSENT,
        "rapl": State.ABSENT,
        "estimate": State.OK,
    }


def test_one_meter_is_enough_to_need_no_estimate(stub: NvmlStub, tmp_path: Path) -> None:
    """A GPU alone is measured, and its CPU stays unknown rather than guessed."""
    probes = probe("auto", now_ns=stub.now_ns, sysfs_root=tmp_path)
    assert states(probes) == {"nvml": State.OK, "rapl": State.ABSENT}


def test_auto_reads_a_simulator_only_where_a_url_is_given(no_gpu: NvmlStub, tmp_path: Path) -> None:
    """The simulator's domains come in by its URL and stand as a meter."""
    with power_server() as server:
        probes = probe(
            "auto", now_ns=time.monotonic_ns, sysfs_root=tmp_path, simulated_url=server.url
        )
        found = states(probes)
    assert found == {"nvml": State.ABSENT, "rapl": State.ABSENT, "simulated": State.OK}


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
    tree.add("intel-rapl:0", "package-0")
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
