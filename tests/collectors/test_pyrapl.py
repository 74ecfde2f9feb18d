"""The pyRAPL collector beside our own reader, on one fake tree.

pyRAPL reads fixed paths, so what it opens below /sys is led to the tree. Where the package is not
installed these tests are skipped, all but the one of its absence: pip install pyRAPL.
"""

import builtins
import contextlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from powercap_tree import INTEL_RANGE_UJ, PowercapTree, without_privilege

from collectors.base import Collector
from collectors.errors import CollectorError, NotPermitted, ReadFailed, Unavailable
from collectors.pyrapl import PyraplCollector
from collectors.rapl import RaplCollector
from collectors.registry import State, probe

Opener = Callable[[], PyraplCollector]


def add_sockets(tree: PowercapTree, count: int) -> None:
    """What pyRAPL reads of the processors: one for each socket."""
    cpus = tree.root / "devices/system/cpu"
    for cpu in range(count):
        topology = cpus / f"cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{cpu}\n")
    (cpus / "present").write_text("0\n" if count == 1 else f"0-{count - 1}\n")


@pytest.fixture
def real(tree: PowercapTree, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens the collector with the real package, led to the tree."""
    pytest.importorskip("pyRAPL", reason="to run it: pip install pyRAPL", exc_type=ImportError)
    import pyRAPL.device_api

    def led(path: str) -> str:
        return path.replace("/sys/", f"{tree.root}/", 1)

    def open_led(path: str, *args: Any) -> Any:
        return builtins.open(led(path), *args)  # noqa: PTH123  it stands in for just that

    exists = SimpleNamespace(exists=lambda path: Path(led(path)).exists())
    monkeypatch.setattr(pyRAPL.device_api, "open", open_led, raising=False)
    monkeypatch.setattr(pyRAPL.device_api, "os", SimpleNamespace(path=exists))
    return lambda: PyraplCollector(now_ns=time.monotonic_ns, sysfs_root=tree.root)


def seen(collector: Collector) -> dict[str, tuple[int | None, int | None, str]]:
    """By domain: microjoules, where the counter wraps, and the kind."""
    by_name = {reading.domain: reading.energy_uj for reading in collector.read().values}
    return {
        domain.name: (by_name[domain.name], domain.range_uj, domain.kind)
        for domain in collector.domains
    }


@pytest.mark.parametrize("dram", [True, False], ids=["Intel", "AMD"])
def test_it_reads_what_ours_reads(real: Opener, tree: PowercapTree, dram: bool) -> None:
    """Two sockets, listed out of order; on AMD without memory, where pyRAPL alone gives up."""
    for index, socket in ((0, 1), (1, 0)):
        tree.add(f"intel-rapl:{index}", f"package-{socket}", energy_uj=262_143_000_000 + index)
        if dram:
            tree.add(f"intel-rapl:{index}:0", "dram", energy_uj=100 + index)
    add_sockets(tree, 2)
    theirs = real()
    ours = RaplCollector(now_ns=time.monotonic_ns, sysfs_root=tree.root)
    assert seen(theirs) == seen(ours)
    assert len(theirs.domains) == (4 if dram else 2)
    tree.set("intel-rapl:0", 7)
    assert seen(theirs) == seen(ours)
    assert seen(theirs)["package:1"][:2] == (7, INTEL_RANGE_UJ)
    theirs.close()
    ours.close()


def test_two_dies_are_absent_with_our_reader_as_remedy(real: Opener, tree: PowercapTree) -> None:
    """pyRAPL expects one package zone to a socket."""
    for die in (0, 1):
        tree.add(f"intel-rapl:{die}", f"package-0-die-{die}")
    add_sockets(tree, 1)
    with pytest.raises(Unavailable) as caught:
        real()
    assert "rapl" in str(caught.value.remedy)


def test_a_forbidden_counter_is_denied(real: Opener, tree: PowercapTree) -> None:
    """With the same remedy as our reader's."""
    tree.add("intel-rapl:0", "package-0")
    tree.forbid("intel-rapl:0")
    add_sockets(tree, 1)
    with without_privilege(), pytest.raises(NotPermitted) as caught:
        real()
    assert "CAP_DAC_READ_SEARCH" in str(caught.value.remedy)


def test_a_vanished_zone_fails_the_pass(real: Opener, tree: PowercapTree) -> None:
    """pyRAPL reads all or nothing; nothing stale is served."""
    tree.add("intel-rapl:0", "package-0", energy_uj=5)
    add_sockets(tree, 1)
    collector = real()
    tree.break_open_files("intel-rapl:0")
    with pytest.raises(ReadFailed):
        collector.read()
    collector.close()


def test_its_import_leaves_the_root_logger_alone(real: Opener, tree: PowercapTree) -> None:
    """No handler that writes to stderr appears, and none that was there goes away."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyRAPL"]:
        del sys.modules[name]
    root = logging.getLogger()
    before, root.handlers[:] = list(root.handlers), []
    try:
        with contextlib.suppress(CollectorError):  # it reads this machine's own /sys now
            PyraplCollector(now_ns=time.monotonic_ns, sysfs_root=tree.root).close()
        assert "pyRAPL" in sys.modules
        assert root.handlers == []
        assert root.filters == []
    finally:
        root.handlers[:] = before


def test_it_is_absent_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is the extra to install."""
    monkeypatch.setitem(sys.modules, "pyRAPL", None)
    (found,) = probe("pyrapl", now_ns=time.monotonic_ns)
    assert (found.state, found.domains) == (State.ABSENT, ())
    assert "melodi-energy[pyrapl]" in str(found.remedy)


def test_it_does_not_read_one_sys_for_another(tmp_path: Path) -> None:
    """With another sysfs root, as in a container, its figures would be of the wrong tree."""
    (found,) = probe("pyrapl", now_ns=time.monotonic_ns, sysfs_root=tmp_path)
    assert found.state is State.ABSENT
    assert str(tmp_path) in str(found.reason)
