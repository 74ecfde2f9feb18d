"""A real OpenAI-compatible server with a tiny random model, on this machine's CPU."""

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ROOT / ".venv-engines" / "bin"
START_SECONDS = 120


@dataclass(frozen=True)
class Engine:
    """A server that answers."""

    url: str
    model: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def real_engine(folder: Path) -> Iterator[Engine]:
    """The server, with its model, log and caches in `folder`."""
    if not (ENGINES / "transformers").exists():
        pytest.fail("the server is not installed: run `make test-engines`")
    model, port = folder / "tiny", free_port()
    maker = [ENGINES / "python", ROOT / "tests/engines/make_tiny_model.py"]
    subprocess.run([*maker, model, ROOT / "prompts/melodi-60.jsonl"], check=True)
    (folder / "hub").mkdir()
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(folder / "hub"),
        "DO_NOT_TRACK": "1",
    }
    command = [ENGINES / "transformers", "serve", model, "--host", "127.0.0.1"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_healthy(f"{url}/health", server, folder / "log")
            yield Engine(url, str(model))
        finally:
            server.terminate()
            server.wait(30)


def wait_until_healthy(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no answer from {url} in {START_SECONDS} s:\n{log.read_text()}")
