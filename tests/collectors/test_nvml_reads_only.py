"""The GPU monitor looks and never touches: no setter, no other program."""

import ast
import contextlib
from pathlib import Path
from typing import Any

import pynvml
import pytest
from nvml_stub import Call, NvmlStub

from collectors.errors import ReadFailed
from collectors.nvml import NvmlCollector

COLLECTORS = Path(__file__).parents[2] / "collectors"
LOOKS = ("nvmlDeviceGet", "nvmlDeviceIs", "nvmlErrorString")
OPENS_AND_CLOSES = {"nvmlInitWithFlags", "nvmlShutdown"}


def test_the_driver_is_asked_for_no_function_that_changes_anything(
    eight: NvmlStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a whole life (open, read, lost, started anew, found, closed) it only looks.

    What is asked for counts, whether the driver has it or not.
    """
    asked = set()
    look_up = pynvml._nvmlGetFunctionPointer

    def record(name: str) -> Any:
        asked.add(name)
        return look_up(name)

    class Recorded:
        """The driver, for those who ask past the binding."""

        def __getattr__(self, name: str) -> Any:
            asked.add(name)
            return getattr(eight.library, name)

    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer", record)
    monkeypatch.setattr(pynvml, "nvmlLib", Recorded())
    eight.make_mig_row(7, parent=0)
    eight.fail(Call.ENERGY, pynvml.NVML_ERROR_NOT_SUPPORTED, device=1)
    collector = NvmlCollector(now_ns=eight.now_ns, sleep=eight.sleep)
    collector.read()
    collector.conditions()
    collector.running_processes()
    for device in range(8):
        eight.lose_handles(device=device)
        eight.fail(Call.UUID_LOOKUP, pynvml.NVML_ERROR_GPU_IS_LOST, count=9, device=device)
    read = 0
    for _ in range(600):
        with contextlib.suppress(ReadFailed):
            read = len(collector.read().values)
        eight.advance(1)
    assert eight.calls(Call.INIT) > 1
    assert read == 7
    collector.close()
    seen = {"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetUtilizationRates"}
    assert OPENS_AND_CLOSES | seen <= asked
    assert {name for name in asked if not name.startswith(LOOKS)} == OPENS_AND_CLOSES


def test_no_collector_starts_another_program() -> None:
    """A first `nvidia-smi` takes a second and wakes the GPU; nothing is run to measure."""
    for path in COLLECTORS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"subprocess", "multiprocessing", "pty"}, path.name
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"system", "popen", "fork", "execv", "posix_spawn"}, path
