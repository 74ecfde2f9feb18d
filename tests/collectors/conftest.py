"""What the tests of collectors share: a compiled driver stub and a fake powercap tree."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvml_stub import NvmlStub, compile_stub, installed
from powercap_tree import PowercapTree


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub library, compiled once."""
    return compile_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def stub(nvml_library: Path) -> Iterator[NvmlStub]:
    """One GPU at 300 W under the real binding."""
    with installed(nvml_library) as stub:
        stub.script([(0, 300)])
        yield stub


@pytest.fixture
def eight(nvml_library: Path) -> Iterator[NvmlStub]:
    """Eight GPUs, the n-th at n + 1 hundred watts."""
    with installed(nvml_library, devices=8) as stub:
        for device in range(8):
            stub.script([(0, 100 * (device + 1))], device=device)
        yield stub


@pytest.fixture
def tree() -> Iterator[PowercapTree]:
    """An empty tree in a folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield PowercapTree(Path(folder))
