"""What tests on a real card share: the card, kernels for it, and clear words where it is not.

GPU_TESTS_LOAD=cpu with the scripted driver on LD_LIBRARY_PATH tries the tests themselves out.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pynvml
import pytest

from benchmarks.gpu.end_to_end.processes import environment
from benchmarks.gpu.probe import load
from benchmarks.gpu.probe.card import bus_id_of, card_at
from benchmarks.gpu.probe.load import TorchMachine
from collectors.errors import CollectorError
from collectors.nvml import NvmlCollector

NO_CARD = "no NVIDIA GPU can be read here; leave out `-m gpu`, or run this where there is one"
NO_TORCH = "torch sees no CUDA device; name an interpreter where it does in ENGINE_PYTHON"


@pytest.fixture
def collector() -> Iterator[NvmlCollector]:
    """Every card here; a failure, no skip, where there is none: these tests were asked for."""
    try:
        opened = NvmlCollector(now_ns=time.monotonic_ns)
    except CollectorError as error:
        pytest.fail(f"{NO_CARD}: {error}")
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def python() -> str:
    """The interpreter that has torch and transformers: ENGINE_PYTHON, or this one."""
    return os.environ.get("ENGINE_PYTHON", sys.executable)


@pytest.fixture
def device(collector: NvmlCollector, python: str) -> str:
    """Where torch runs kernels."""
    chosen = os.environ.get("GPU_TESTS_LOAD", "cuda:0")
    sees = "import torch; assert torch.cuda.is_available()" if chosen != "cpu" else "import torch"
    tried = subprocess.run([python, "-c", sees], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.fail(f"{NO_TORCH}: {tried.stderr.strip()[-300:]}")
    return chosen


@pytest.fixture
def place(collector: NvmlCollector, device: str) -> int:
    """Which of the collector's domains the kernels run on."""
    card = card_at(pynvml, partial(bus_id_of, device))
    if card.doubt is not None:
        pytest.fail(f"nobody says on which card kernels run: {card.doubt}")
    return [one.name for one in collector.domains].index(f"gpu:{card.uuid}")


@pytest.fixture
def machine(device: str, python: str) -> Iterator[TorchMachine]:
    """Kernels in a process of their own, ready to run."""
    opened = TorchMachine(device, python=python)
    try:
        opened.open_load()
        yield opened
    finally:
        opened.close()


@pytest.fixture
def kernels(device: str, python: str) -> list[str]:
    """A command that multiplies matrices on the card for four seconds."""
    program = (
        f"import io, sys; sys.path.insert(0, {str(Path(load.__file__).parent)!r}); import load; "
        f"sys.stdin = io.StringIO('[4.0, null]\\n'); load.run_kernels({device!r})"
    )
    return [python, "-c", program]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Of processes that import this tree, with data of their own."""
    return environment(None, XDG_DATA_HOME=str(tmp_path))
