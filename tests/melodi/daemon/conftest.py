"""A daemon in front of a simulated backend."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from nvml_stub import NvmlStub, compile_stub, installed
from powercap_tree import PowercapTree
from virtual_host import GPU_WATTS

from collectors.registry import Probe, State
from collectors.simulated import SimulatedCollector
from melodi.clock import SystemClock
from melodi.config import Api, BackendSettings, Database, Settings
from melodi.daemon.serve import Served, served
from melodi.simulator.launch import RunningSimulator, default_settings, simulator_in_thread

CLOCK = SystemClock()
ANY_PORT = "127.0.0.1:0"


@dataclass
class Stage:
    """A simulator, the meter on it, and settings for a daemon in front of it."""

    kind: str
    simulator: RunningSimulator
    settings: Settings

    def probes(self) -> list[Probe]:
        sensor = self.simulator.sensor
        meter = SimulatedCollector([(sensor.domain, sensor.read)], now_ns=CLOCK.monotonic_ns)
        return [Probe(name="simulated", state=State.OK, collector=meter)]


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MELODI keeps for itself stays out of the home folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for the driver, compiled once."""
    return compile_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(nvml_library: Path) -> Iterator[NvmlStub]:
    """Two GPUs of constant power."""
    with installed(nvml_library, devices=len(GPU_WATTS)) as stub:
        for device, watts in enumerate(GPU_WATTS):
            stub.script([(0, watts)], device=device)
        yield stub


@pytest.fixture
def tree() -> Iterator[PowercapTree]:
    """A powercap tree without any zone."""
    with tempfile.TemporaryDirectory() as folder:
        yield PowercapTree(Path(folder))


@pytest.fixture(params=["ollama", "vllm"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    kind = request.param
    quick = replace(default_settings(kind), load_seconds=0.3)
    with simulator_in_thread(kind, settings=quick) as simulator:
        backends = [
            BackendSettings(name="sim", kind=kind, url=simulator.url, listen=ANY_PORT),
            BackendSettings(name="down", kind=kind, url="http://127.0.0.1:9", listen=ANY_PORT),
        ]
        settings = Settings(
            host="test",
            api=Api(listen=ANY_PORT),
            database=Database(url=f"sqlite:///{tmp_path / 'melodi.db'}"),
            backends=backends,
        )
        yield Stage(kind, simulator, settings)


@pytest.fixture
async def daemon(stage: Stage) -> AsyncIterator[Served]:
    async with served(stage.settings, clock=CLOCK, probes=stage.probes()) as one:
        yield one
