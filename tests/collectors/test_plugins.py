"""Meters of third parties: the one of the how-to page, and those that are broken."""

import importlib
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collectors.base import Kind
from collectors.plugins import GROUP
from collectors.registry import COLLECTORS, Probe, State, probe

PAGE = Path(__file__).parents[2] / "docs/how-to/add-a-meter.md"
Install = Callable[..., None]

WORKING = """
from collectors.base import *

class Meter:
    name = "{name}"
    domains = (Domain(name="{domain}", kind=Kind.GPU, scope="gpu", source="my:x",
                      measure=Measure.COUNTER),)
    def __init__(self, *, now_ns, sysfs_root): self.now_ns = now_ns
    def read(self): return Readings((Reading("{domain}", self.now_ns(), 0, 5),))
    def conditions(self): return ()
    def close(self): pass
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a module and its entry points as a tiny distribution, until the test ends."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    modules = []

    def write(distribution: str, module: str, source: str, points: dict[str, str]) -> None:
        modules.append(module)
        (folder / f"{module}.py").write_text(source)
        about = folder / f"{distribution}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\n")
        lines = "\n".join(f"{name} = {value}" for name, value in points.items())
        (about / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n")
        importlib.invalidate_caches()

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def only(name: str, root: Path) -> Probe:
    (found,) = probe(name, now_ns=time.monotonic_ns, sysfs_root=root)
    return found


def test_the_meter_of_the_page_works_as_it_stands(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two blocks, installed and nothing else: found by auto, proven, read in microwatts."""
    blocks = dict(re.findall(r"^```(python|text)\n(.*?)^```$", PAGE.read_text(), re.S | re.M))
    points = tomllib.loads(blocks["text"])["project"]["entry-points"][GROUP]
    install("plug-meter", "plug_meter", blocks["python"], points)
    file = tmp_path / "watts"
    monkeypatch.setenv("PLUG_FILE", str(file))
    assert only("plug", tmp_path).state is State.ABSENT
    file.write_text("123.5\n")
    probes = probe("auto", now_ns=time.monotonic_ns, sysfs_root=tmp_path)
    (found,) = (one for one in probes if one.name == "plug")
    assert (found.state, found.domains[0].kind) == (State.OK, Kind.PLATFORM)
    assert found.collector is not None
    (reading,) = found.collector.read().values
    assert (reading.domain, reading.power_uw) == ("node:plug", 123_500_000)
    file.write_text("-\n")
    assert only("plug", tmp_path).state is State.FAILING
    for one in probes:
        if one.collector is not None:
            one.collector.close()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("other = 1", "AttributeError"),
        ("def Meter(*, now_ns, sysfs_root): return object()", "AttributeError"),
        ("def Meter(now_ns): pass", "TypeError"),
        ("def Meter(*, now_ns, sysfs_root): raise SystemExit(3)", "SystemExit"),
        (WORKING.format(name="else", domain="gpu:X"), "calls itself 'else'"),
        (WORKING.format(name="mine", domain="gpu:X").replace(", 5),))", ", 5),)[:0])"), "no value"),
        (WORKING.format(name="mine", domain="gpu:X").replace("(Domain(", "(str("), "TypeError"),
    ],
)
def test_a_broken_meter_fails_with_its_reason_and_the_others_go_on(
    install: Install, tmp_path: Path, source: str, reason: str
) -> None:
    """Whatever it does when it is imported, opened or read, it is one failing probe."""
    install("my-meter", "my_meter", source, {"mine": "my_meter:Meter"})
    mine, estimate = probe(["mine", "estimate"], now_ns=time.monotonic_ns, sysfs_root=tmp_path)
    assert (mine.state, estimate.state) == (State.FAILING, State.OK)
    assert reason in str(mine.reason)
    assert "uninstall my-meter" in str(mine.remedy)


def test_a_meter_that_opened_and_proves_nothing_is_closed_again(
    install: Install, tmp_path: Path
) -> None:
    """What it holds is let go of, for nobody else will."""
    source = WORKING.format(name="else", domain="gpu:X")
    closing = "open(__file__ + '.closed', 'x').close()"
    source = source.replace("close(self): pass", f"close(self): {closing}")
    install("my-meter", "my_meter", source, {"mine": "my_meter:Meter"})
    assert only("mine", tmp_path).state is State.FAILING
    assert (tmp_path / "site/my_meter.py.closed").exists()


def test_a_meter_may_not_take_the_name_of_ours_or_of_another(
    install: Install, tmp_path: Path
) -> None:
    """`rapl` stays ours; of two with one name the first is opened and the other refused."""
    source = WORKING.format(name="mine", domain="gpu:X")
    install("first", "first_meter", source, {"mine": "first_meter:Meter", "rapl": "first_meter:M"})
    install("second", "second_meter", source, {"mine": "second_meter:Meter"})
    probes = probe("auto", now_ns=time.monotonic_ns, sysfs_root=tmp_path)
    states = {one.name: one.state for one in probes if one.name not in {"nvml", "hwmon"}}
    assert states == {
        "rapl": State.ABSENT,
        "mine": State.OK,
        "mine@second": State.FAILING,
        "rapl@first": State.FAILING,
    }
    refused = {one.name: str(one.reason) for one in probes if "@" in one.name}
    assert "called 'mine' already" in refused["mine@second"]
    assert "called 'rapl' already" in refused["rapl@first"]


def test_a_domain_that_is_measured_already_is_not_measured_twice(
    install: Install, tmp_path: Path
) -> None:
    """A second reader of the same domain is closed and says whose domain it is."""
    install(
        "my-meter",
        "my_meter",
        WORKING.format(name="mine", domain="package:0"),
        {"mine": "my_meter:Meter"},
    )
    _, mine = probe(["estimate", "mine"], now_ns=time.monotonic_ns, sysfs_root=tmp_path)
    assert (mine.state, mine.collector) == (State.FAILING, None)
    assert "package:0 is measured by estimate" in str(mine.reason)


def test_an_unknown_name_is_refused_with_those_that_are_installed(install: Install) -> None:
    """Third parties' names stand in the message beside ours."""
    install("my-meter", "my_meter", "", {"mine": "my_meter:Meter"})
    with pytest.raises(ValueError, match="mine") as caught:
        probe("mien", now_ns=time.monotonic_ns)
    assert all(name in str(caught.value) for name in COLLECTORS)
