"""A folder to run commands in, and a simulated backend to run them against."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Shell

from melodi.simulator.launch import RunningSimulator, simulator_in_thread


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="session")
def simulator() -> Iterator[RunningSimulator]:
    with simulator_in_thread("vllm") as one:
        yield one


@pytest.fixture
def configured(shell: Shell, simulator: RunningSimulator) -> Shell:
    """A folder whose melodi.toml names the simulator (backend and meter) and a dead backend."""
    (shell.folder / "melodi.toml").write_text(
        f'[collectors]\nsimulated = "{simulator.url}"\n'
        f'[[backends]]\nname = "sim"\nkind = "vllm"\nurl = "{simulator.url}"\n'
        f'[[backends]]\nname = "other"\nkind = "openai"\nurl = "{simulator.url}"\n'
        '[[backends]]\nname = "down"\nkind = "vllm"\nurl = "http://127.0.0.1:9"\n'
    )
    return shell
