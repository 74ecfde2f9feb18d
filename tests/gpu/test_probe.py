"""The probe against a scripted driver whose refresh and window are known."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
from nvml_stub import SOURCE, Call, NvmlStub, compile_stub

from benchmarks.gpu.probe.__main__ import run
from benchmarks.gpu.probe.load import StubMachine

ROOT = SOURCE.parents[2]
ARCHITECTURES = {
    "GA100 and Hopper": (100, 25),
    "GA10x and Ada": (100, 1000),
    "Volta": (20, 10),
}
"""Refresh and averaging window in ms, as published ("Part-time power measurements", SC24)."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_stub(tmp_path_factory.mktemp("stub"))


@pytest.fixture
def binding() -> Iterator[None]:
    """Afterwards the binding is as it was."""
    before = pynvml.nvmlLib
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield
    pynvml.nvmlLib = before
    pynvml._nvmlGetFunctionPointer_cache.clear()


def found_in(folder: Path) -> dict:
    return json.loads((folder / "probe.json").read_text())


@pytest.mark.usefixtures("binding")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_refresh_and_window_of_every_architecture_are_found(
    name: str, library: Path, tmp_path: Path
) -> None:
    """The mean's window, the counter's wholeness, and that the present is no mean."""
    refresh_ms, window_ms = ARCHITECTURES[name]
    machine = StubMachine(library, refresh_ms=refresh_ms, window_ms=window_ms)
    assert run(machine, device=0, out=tmp_path, limit_seconds=280) == 0
    sensors = found_in(tmp_path)["sensors"]
    for sensor in ("energy", "energy_field", "instant:gpu", "average:gpu", "usage"):
        assert sensors[sensor]["refresh"]["period_ms"] == pytest.approx(refresh_ms, rel=0.01)
    for sensor in ("average:gpu", "usage"):
        window = sensors[sensor]["window"]
        assert window["low_ms"] <= window_ms <= window["high_ms"]
        assert window["width_ms"] == pytest.approx(window_ms, rel=0.35)
    assert sensors["energy"]["window"]["width_ms"] == pytest.approx(refresh_ms, rel=0.3)
    assert sensors["instant:gpu"]["window"]["width_ms"] <= 5
    assert "error" in sensors["instant:module"]["answer"]


@pytest.mark.usefixtures("binding")
def test_what_fails_is_told_and_the_rest_is_found(library: Path, tmp_path: Path) -> None:
    """A card without a counter, and one call that fails for once: a whole probe, with reasons."""
    machine = StubMachine(library)
    stub = object.__new__(NvmlStub)
    stub.library = pynvml.nvmlLib
    stub.fail(Call.ENERGY, pynvml.NVML_ERROR_NOT_SUPPORTED)
    stub.fail(Call.USAGE, pynvml.NVML_ERROR_NOT_SUPPORTED, count=2)
    assert run(machine, device=0, out=tmp_path, limit_seconds=280) == 0
    found = found_in(tmp_path)
    assert "NotSupported" in found["sensors"]["energy"]["answer"]["error"]
    assert found["sensors"]["usage"]["window"] is not None
    assert "against_counter" not in found
    page = (tmp_path / "probe.md").read_text()
    assert "| energy | NVMLError_NotSupported" in page
    assert "Cost of polling: left out" in page


@pytest.mark.usefixtures("binding")
def test_a_stage_that_breaks_ends_nothing_but_itself(library: Path, tmp_path: Path) -> None:
    """No kernels can be started: idle and latency are found all the same, and 1 says so."""

    class Broken(StubMachine):
        def start(self, seconds: float, half_ms: float | None) -> None:
            raise RuntimeError("no kernels")

    assert run(Broken(library), device=0, out=tmp_path, limit_seconds=280) == 1
    found = found_in(tmp_path)
    assert set(found["not_done"]) == {"waves", "steady_and_tail", "cost"}
    assert found["cold_idle_mw"]["instant:gpu"] == pytest.approx(80_000)
    assert "Not done: waves (RuntimeError: no kernels)" in (tmp_path / "probe.md").read_text()


@pytest.mark.usefixtures("binding")
def test_stages_for_which_there_is_no_time_are_left_out_and_named(
    library: Path, tmp_path: Path
) -> None:
    """A limit of 15 s is enough for the first ones only."""
    assert run(StubMachine(library), device=0, out=tmp_path, limit_seconds=15) == 1
    found = found_in(tmp_path)
    assert found["cold_idle_mw"]
    assert "no time" in found["not_done"]["waves"]


def test_a_copy_of_the_folder_runs_anywhere(library: Path, tmp_path: Path) -> None:
    """Nothing of this repository is needed but the folder itself."""
    (tmp_path / "probe").symlink_to(ROOT / "benchmarks/gpu/probe")
    ended = subprocess.run(
        [sys.executable, "-m", "probe", "--out", "found", "--stub", library],
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0
    assert found_in(tmp_path / "found")["sensors"]["energy"]["window"]
