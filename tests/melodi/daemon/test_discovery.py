"""What processes do becomes parts of domains, and where they are becomes what is charged."""

import threading
from dataclasses import replace
from typing import Any

import pynvml
import pytest
from nvml_stub import Call, NvmlStub
from process_table import FakeProcesses
from waiting import PATIENCE_SECONDS

from collectors.base import Domain, Kind, Measure, Origin
from collectors.registry import Probe, State
from melodi.clock import NS_PER_SECOND, SystemClock, VirtualClock
from melodi.config import BackendSettings
from melodi.daemon.backends import Backends, Charge
from melodi.daemon.discovery import Discovery, discovery_of
from melodi.energy.usage import Usage
from melodi.errors import ConfigError
from melodi.inference.loaded import LoadedModel


def domain(name: str, kind: Kind, **more: Any) -> Domain:
    return Domain(name=name, kind=kind, scope="s", source="t", measure=Measure.COUNTER, **more)


GPU_A, GPU_B = domain("gpu:A", Kind.GPU), domain("gpu:B", Kind.GPU)
PACKAGE, DRAM = domain("package:0", Kind.CPU), domain("dram:0", Kind.DRAM)
PSYS = domain("psys:0", Kind.PLATFORM, summable=False)
HOST = [GPU_A, GPU_B, PACKAGE, DRAM, PSYS]
EVERYTHING = ("gpu:A", "gpu:B", "package:0", "dram:0")


class FakeGpus:
    """GPUs with processes on them, as a test says."""

    def __init__(self) -> None:
        self.running: dict[str, dict[int, int | None]] = {"gpu:A": {}, "gpu:B": {}}
        self.busy: dict[str, dict[int, int]] = {"gpu:A": {}, "gpu:B": {}}

    def running_processes(self) -> dict[str, dict[int, int | None]]:
        return self.running

    def busy_processes(self) -> dict[str, dict[int, int]]:
        return self.busy


class StepClock(SystemClock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns


class Scene:
    """A host with a vLLM of one worker and an Ollama, and what is told of it."""

    def __init__(self) -> None:
        self.table = FakeProcesses()
        self.table.ports["127.0.0.1", 8000] = {self.table.start(10, "vllm")}
        self.table.start(11, "worker", parent=10)
        self.table.ports["127.0.0.1", 11434] = {self.table.start(20, "ollama")}
        self.table.start(90, "backup")
        self.gpus: FakeGpus | None = FakeGpus()
        self.clock = StepClock()
        self.domains = HOST
        self.usages: dict[str, Usage] = {}
        settings = [
            BackendSettings(name="v", kind="vllm", url="http://127.0.0.1:8000"),
            BackendSettings(name="o", kind="ollama", url="http://127.0.0.1:11434"),
        ]
        self.backends = Backends(settings, self.domains)
        self.discovery = Discovery(
            self.backends.watched(),
            table=self.table,
            gpus=lambda: self.gpus,
            domains=lambda: self.domains,
            clock=self.clock,
            on_placed=self.backends.place,
            on_usage=self._on_usage,
        )

    def _on_usage(self, usage: Usage) -> None:
        assert usage.domain not in self.usages
        self.usages[usage.domain] = usage

    def look(self) -> dict[str, Usage]:
        """Look once more, a second later; what was told of it."""
        self.usages = {}
        self.clock.now_ns += NS_PER_SECOND
        self.discovery.look()
        return self.usages


@pytest.fixture
def scene() -> Scene:
    return Scene()


# ---- parts of domains ----------------------------------------------------------------------


def test_cpu_domains_are_parted_by_the_cpu_time_of_whole_trees(scene: Scene) -> None:
    """Package and memory alike, for the time between two looks; the backup is foreign."""
    assert scene.look() == {}
    scene.table.spend(11, 1.0)
    scene.table.spend(20, 0.5)
    scene.table.spend(90, 0.5)
    found = scene.look()
    expected = Usage(
        domain="package:0",
        start_ns=NS_PER_SECOND,
        end_ns=2 * NS_PER_SECOND,
        shares={"v": 0.5, "o": 0.25},
    )
    assert found == {"package:0": expected, "dram:0": replace(expected, domain="dram:0")}


@pytest.mark.parametrize("is_hidden", [True, False])
def test_a_backend_that_is_not_found_has_no_part(scene: Scene, *, is_hidden: bool) -> None:
    """The others' are known all the same; with nobody found nothing is told."""
    scene.table.ports["127.0.0.1", 11434].clear()
    if is_hidden:
        scene.table.hidden.add(11434)
    scene.look()
    scene.table.spend(11, 1)
    scene.table.spend(20, 1)
    assert scene.look()["package:0"].shares == {"v": 0.5}
    scene.table.end(10)
    scene.table.end(11)
    scene.look()
    scene.table.spend(20, 1)
    assert scene.look() == {}


def test_a_gpu_with_one_backend_alone_is_all_its_own(scene: Scene) -> None:
    """No reason stands in the way of the best quality."""
    assert scene.gpus is not None
    scene.gpus.running["gpu:A"] = {11: 1}
    scene.look()
    found = scene.look()
    assert found["gpu:A"].shares == {"v": 1.0, "o": 0.0}
    assert found["gpu:A"].reason is None
    assert "gpu:B" not in found


def test_a_gpu_with_foreign_processes_is_parted_by_sm_time(scene: Scene) -> None:
    """The reason says that it is an estimate."""
    assert scene.gpus is not None
    scene.gpus.running["gpu:A"] = {11: 1, 90: 1}
    scene.gpus.busy["gpu:A"] = {11: 75, 90: 25}
    scene.look()
    found = scene.look()["gpu:A"]
    assert (found.shares, found.reason) == ({"v": 0.75, "o": 0.0}, "foreign_estimated")


def test_pids_of_another_namespace_leave_the_gpu_unknown(scene: Scene) -> None:
    """They may be the backend's own; it is charged for all GPUs, and the doctor says why."""
    assert scene.gpus is not None
    scene.gpus.running["gpu:A"] = {4_000_000: 1}
    scene.gpus.busy["gpu:A"] = {4_000_000: 90}
    scene.look()
    assert "gpu:A" not in scene.look()
    assert scene.backends.charge("v") == Charge(EVERYTHING, "assumed")


def test_nothing_is_said_of_simulated_domains(scene: Scene) -> None:
    """Nobody but the simulated backend can draw from them."""
    scene.domains = [
        replace(PACKAGE, origin=Origin.SIMULATOR),
        replace(GPU_A, exclusive=True),
    ]
    scene.look()
    scene.table.spend(11, 1)
    assert scene.look() == {}


# ---- what is charged -----------------------------------------------------------------------


def test_a_backend_is_charged_for_the_gpus_that_it_is_on(scene: Scene) -> None:
    """And for all CPUs and memory; a tensor-parallel one for all of its GPUs."""
    assert scene.gpus is not None
    assert scene.backends.charge("v") == Charge(EVERYTHING, "assumed")
    scene.gpus.running["gpu:B"] = {11: 1, 90: 1}
    scene.look()
    assert scene.backends.charge("v") == Charge(("gpu:B", "package:0", "dram:0"), "processes")
    assert scene.backends.charge("o") == Charge(EVERYTHING, "assumed")
    scene.gpus.running["gpu:A"] = {10: 1}
    scene.look()
    assert scene.backends.charge("v") == Charge(EVERYTHING, "processes")


def test_a_backend_whose_model_is_gone_may_load_the_next_one_anywhere(scene: Scene) -> None:
    """Ollama's runner ends with its model: what it was on before says nothing any more."""
    assert scene.gpus is not None
    scene.gpus.running["gpu:B"] = {scene.table.start(21, "runner", parent=20): 1}
    scene.look()
    assert scene.backends.domains_of("o") == ("gpu:B", "package:0", "dram:0")
    scene.gpus.running["gpu:B"] = {}
    scene.table.end(21)
    scene.look()
    assert scene.backends.charge("o") == Charge(EVERYTHING, "assumed")


def test_an_assumption_that_turns_out_right_is_no_doubt(scene: Scene) -> None:
    """A request that waits for its model begins before anybody knows where that will be."""
    assert scene.gpus is not None
    began = scene.backends.charge("v")
    assert scene.backends.doubts("v", "m", began) == ("devices_assumed",)
    scene.gpus.running = {"gpu:A": {11: 1}, "gpu:B": {11: 1}}
    scene.look()
    assert scene.backends.doubts("v", "m", began) == ()
    scene.gpus.running = {"gpu:A": {11: 1}, "gpu:B": {}}
    scene.look()
    assert scene.backends.doubts("v", "m", began) == ("devices_assumed",)
    known = scene.backends.charge("v")
    scene.gpus.running = {"gpu:A": {}, "gpu:B": {}}
    scene.look()
    assert scene.backends.doubts("v", "m", known) == ()


def test_a_model_that_is_in_no_gpus_memory_is_charged_to_none(scene: Scene) -> None:
    """Ollama tells; the other models of the same server are charged as before."""
    assert scene.gpus is not None
    scene.gpus.running["gpu:B"] = {20: 1}
    scene.look()
    on_gpu = Charge(("gpu:B", "package:0", "dram:0"), "processes")
    began = scene.backends.charge("o", "slow")
    assert began == on_gpu
    scene.backends.hold({"o": [LoadedModel("slow", 0), LoadedModel("fast", 5)]})
    on_cpu = Charge(("package:0", "dram:0"), "model")
    assert scene.backends.charge("o", "slow") == on_cpu
    assert scene.backends.charge("o", "fast") == on_gpu
    assert scene.backends.charge("v", "slow") == Charge(EVERYTHING, "assumed")
    assert scene.backends.doubts("o", "slow", on_cpu) == ()
    assert scene.backends.doubts("o", "slow", began) == ("devices_assumed",)
    scene.backends.hold({"o": [LoadedModel("slow", None)]})
    assert scene.backends.charge("o", "slow") == on_gpu


def test_without_a_gpu_that_could_be_anothers_there_is_nothing_to_assume() -> None:
    """A host of CPUs, or one whose only GPU is simulated."""
    settings = [BackendSettings(name="v", kind="vllm", url="http://127.0.0.1:8000")]
    for domains in ([PACKAGE, DRAM], [replace(GPU_A, exclusive=True)]):
        charge = Backends(settings, domains).charge("v")
        assert charge == Charge(tuple(one.name for one in domains), "all")


def test_named_devices_win_and_a_server_elsewhere_is_not_watched() -> None:
    """With `devices = []` nothing is charged, and nobody looks for its processes."""
    settings = [
        BackendSettings(
            name="v", kind="vllm", url="http://127.0.0.1:8000", devices=["gpu:A"], process=7
        ),
        BackendSettings(name="far", kind="vllm", url="http://192.0.2.1", devices=[]),
    ]
    backends = Backends(settings, HOST)
    assert backends.charge("v") == Charge(("gpu:A",), "settings")
    assert backends.charge("far") == Charge((), "settings")
    assert [(one.name, one.process) for one in backends.watched()] == [("v", 7)]
    with pytest.raises(ConfigError, match="which is not measured here"):
        Backends(settings, [PACKAGE])


# ---- the thread ----------------------------------------------------------------------------


def test_a_look_that_fails_is_not_the_last(scene: Scene) -> None:
    """What cannot be known now may be in a second."""
    told = threading.Event()
    failed = []

    def busy_ns() -> int:
        if not failed:
            failed.append(True)
            raise PermissionError("not now")
        told.set()
        return 0

    scene.table.busy_ns = busy_ns  # type: ignore[method-assign]
    discovery = Discovery(
        scene.backends.watched(),
        table=scene.table,
        gpus=lambda: None,
        domains=lambda: HOST,
        clock=SystemClock(),
        on_placed=scene.backends.place,
        on_usage=scene._on_usage,
    )
    discovery.start()
    try:
        assert discovery.wait(PATIENCE_SECONDS)
        assert told.wait(PATIENCE_SECONDS)
    finally:
        discovery.stop()
    assert not discovery._thread.is_alive()


def test_with_no_backend_there_is_nothing_to_look_for() -> None:
    """Nobody waits for it either."""
    discovery = Discovery(
        [],
        table=FakeProcesses(),
        gpus=lambda: None,
        domains=list,
        clock=SystemClock(),
        on_placed=lambda _: None,
        on_usage=lambda _: None,
    )
    discovery.start()
    assert discovery.wait(0)
    discovery.stop()


def test_gpus_that_another_process_reads_tell_who_is_on_them(gpus: NvmlStub) -> None:
    """NVML is opened once more for that, and finds a GPU again that was lost meanwhile."""
    clock = VirtualClock()
    device = f"gpu:{gpus.uuid()}"
    probes = [Probe(name="nvml", state=State.OK, elsewhere=(domain(device, Kind.GPU),))]
    discovery = discovery_of(Backends([], []), lambda: probes, clock=clock, on_usage=lambda _: None)
    gpus.fail(Call.INIT, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    assert discovery._gpus() is None
    gpus.mend(Call.INIT)
    gpus.add_process(123, 5)
    lists = discovery._gpus()
    assert lists is not None
    assert lists.running_processes()[device] == {123: 5}
    gpus.lose_handles()
    assert device not in discovery._gpus().running_processes()
    clock.advance(2_000_000_000)
    assert discovery._gpus().running_processes()[device] == {123: 5}
    assert gpus.initialised == 1
