"""The probe against a scripted driver whose refresh and window are known."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pynvml
import pytest
from nvml_stub import SOURCE, Call, NvmlStub, compile_stub, in_real_time

from benchmarks.gpu.pack import pack
from benchmarks.gpu.probe.__main__ import run
from benchmarks.gpu.probe.card import NotTold, bus_id_of, card_at
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


def known() -> str:
    """The bus id of the scripted driver's first card."""
    return "00000000:01:00.0"


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
    assert run(machine, known, out=tmp_path, limit_seconds=280) == 0
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
    assert run(machine, known, out=tmp_path, limit_seconds=280) == 0
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

    assert run(Broken(library), known, out=tmp_path, limit_seconds=280) == 1
    found = found_in(tmp_path)
    assert set(found["not_done"]) == {"waves", "steady_and_tail", "cost"}
    assert found["cold_idle_mw"]["instant:gpu"] == pytest.approx(80_000)
    assert "Not done: waves (RuntimeError: no kernels)" in (tmp_path / "probe.md").read_text()


@pytest.mark.usefixtures("binding")
def test_stages_for_which_there_is_no_time_are_left_out_and_named(
    library: Path, tmp_path: Path
) -> None:
    """A limit of 15 s is enough for the first ones only."""
    assert run(StubMachine(library), known, out=tmp_path, limit_seconds=15) == 1
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
    assert found_in(tmp_path / "found")["watched"]["doubt"] is None


def test_packed_into_one_file_it_runs_anywhere(library: Path, tmp_path: Path) -> None:
    """One file is carried to another machine; its exit code says whether all was done."""
    pack(tmp_path / "probe.pyz")
    for limit, code in (("240", 0), ("15", 1)):
        options = ["--out", "found", "--stub", library, "--limit", limit]
        ended = subprocess.run(
            [sys.executable, "probe.pyz", *options], cwd=tmp_path, check=False, timeout=60
        )
        assert ended.returncode == code
    assert found_in(tmp_path / "found")["cold_idle_mw"]


TORCH = """
bfloat16 = float32 = None
def randn(*size, device, dtype): return size
def empty_like(like): return like
def mm(left, right, out): pass
"""
KERNELS = """
import sys
sys.path.insert(0, "probe.pyz")
from probe.load import TorchMachine
machine = TorchMachine("cpu")
machine.open_load()
machine.start(0.2, 20.0)
print(machine.finish().kernels)
machine.close()
"""


def test_packed_into_one_file_it_finds_what_runs_kernels(tmp_path: Path) -> None:
    """The process that works is started from the same file, with the torch that is there."""
    pack(tmp_path / "probe.pyz")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "torch.py").write_text(TORCH)
    told = subprocess.check_output(
        [sys.executable, "-c", KERNELS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        timeout=60,
    )
    assert int(told) > 0


CUDA = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int ready;
int cuInit(unsigned flags) { ready = 1; return flags; }
int cuDeviceGet(int *device, int number) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (!ready || number != 0) return 101;
    *device = strcmp(visible, "GPU-00000002-0000-4000-8000-000000000000") == 0 ? 2 : 0;
    return 0;
}
int cuDeviceGetPCIBusId(char *text, int length, int device) {
    snprintf(text, length, "0000:%02x:00.0", device + 1);
    return 0;
}
"""
"""A driver's few functions, which know one name of a card."""


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> str:
    library = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", "-o", library, "-x", "c", "-"]
    subprocess.run(command, input=CUDA, text=True, check=True)
    return str(library)


@pytest.mark.usefixtures("binding")
def test_the_card_is_watched_on_which_kernels_run(
    cuda: str, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA_VISIBLE_DEVICES shows only the third of three: its power is told, not the first's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-00000002-0000-4000-8000-000000000000")
    machine = StubMachine(library, cards=3, busy_card=2)
    bus_id = partial(bus_id_of, "cuda:0", library=cuda)
    assert run(machine, bus_id, out=tmp_path, limit_seconds=280) == 0
    found = found_in(tmp_path)
    uuid = "GPU-00000002-0000-4000-8000-000000000000"
    assert found["watched"] == {"uuid": uuid, "doubt": None}
    assert found["steady_mw"]["instant:gpu"] == pytest.approx(500_000, rel=0.01)
    assert "another card" not in (tmp_path / "probe.md").read_text()


@pytest.mark.usefixtures("binding")
def test_where_nobody_tells_the_card_it_is_said(library: Path, tmp_path: Path) -> None:
    """Two cards, and CUDA cannot be asked: both files say that the figures may be of the other."""
    machine = StubMachine(library, cards=2, busy_card=1)
    bus_id = partial(bus_id_of, "cuda:0", library="libno-such-cuda.so.1")
    run(machine, bus_id, out=tmp_path, limit_seconds=15)
    doubt = found_in(tmp_path)["watched"]["doubt"]
    assert "libno-such-cuda" in doubt
    assert "first of 2" in doubt
    assert f"another card than was watched**: {doubt}" in (tmp_path / "probe.md").read_text()


@pytest.mark.usefixtures("binding")
def test_a_card_that_nvml_does_not_know_is_not_the_only_one_that_it_does(library: Path) -> None:
    """CUDA tells a bus id where NVML finds nothing: the one card that it lists is another."""
    StubMachine(library)
    pynvml.nvmlInit()
    assert card_at(pynvml, known).doubt is None
    elsewhere = card_at(pynvml, lambda: "0000:07:00.0")
    assert elsewhere.uuid == "GPU-00000000-0000-4000-8000-000000000000"
    assert elsewhere.doubt is not None


def test_what_cuda_refuses_is_told_with_its_error(cuda: str) -> None:
    """A device that is not there, and a processor that is none."""
    with pytest.raises(NotTold, match="cuDeviceGet for cuda:5 with error 101"):
        bus_id_of("cuda:5", library=cuda)
    with pytest.raises(NotTold, match="cpu"):
        bus_id_of("cpu", library=cuda)


def test_the_second_reader_does_not_read_a_card_that_may_be_another(
    library: Path, tmp_path: Path
) -> None:
    """Of two scripted cards nobody says which one serves: it ends with what to do."""
    script = [(0.0, 100.0), (1_000.0, 100.0)]
    env = os.environ | in_real_time(library, script, script) | {"PYTHONPATH": str(ROOT)}
    reader = ROOT / "benchmarks/gpu/end_to_end/reader.py"
    ended = subprocess.run(
        [sys.executable, reader, tmp_path / "reader.txt", "cpu"],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "show this process only one" in ended.stderr
