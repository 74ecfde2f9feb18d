"""Real inference servers with a tiny random model, on this machine's CPU."""

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINES, VLLM = ROOT / ".venv-engines" / "bin", ROOT / ".venv-vllm" / "bin"
START_SECONDS = 240


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
    """`transformers serve`, with its model, log and caches in `folder`."""
    model, port = _tiny_model(folder, ENGINES), free_port()
    command = [ENGINES / "transformers", "serve", model, "--host", "127.0.0.1"]
    with _running([*command, "--port", str(port), "--device", "cpu"], folder, port=port) as url:
        yield Engine(url, str(model))


@contextmanager
def real_vllm(folder: Path, *flags: str) -> Iterator[Engine]:
    """vLLM's own server, with its model, log and caches in `folder`."""
    model, port = _tiny_model(folder, VLLM), free_port()
    command = [VLLM / "python", "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += ["--model", model, "--served-model-name", "tiny", "--host", "127.0.0.1"]
    with _running([*command, "--port", str(port), *flags], folder, port=port) as url:
        yield Engine(url, "tiny")


def _tiny_model(folder: Path, environment: Path) -> Path:
    if not (environment / "python").exists():
        pytest.fail("the server is not installed: run `make test-engines`")
    maker = [environment / "python", ROOT / "tests/engines/make_tiny_model.py"]
    subprocess.run([*maker, folder / "tiny", ROOT / "prompts/melodi-60.jsonl"], check=True)
    return folder / "tiny"


@contextmanager
def _running(command: Sequence[str | Path], folder: Path, *, port: int) -> Iterator[str]:
    """A server that keeps to this machine; gives its url."""
    (folder / "hub").mkdir()
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(folder / "hub"),
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_healthy(f"{url}/health", server, folder / "log")
            yield url
        finally:
            server.terminate()
            server.wait(60)


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
