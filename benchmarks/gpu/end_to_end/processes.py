"""The processes of a run: an inference server, MELODI's daemon, the second reader."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SERVE = "from transformers.cli.transformers import main; main()"
"""Not the script of that name: it need not be on the PATH, and its first line may be stale."""
MELODI = "from melodi.cli.main import main; main()"
STOP_SECONDS = 30
BACKEND = "engine"


class NotStarted(Exception):
    """A process ended or did not answer in time; says where its log is."""


def environment(site: Path | None, **more: str) -> dict[str, str]:
    """This process's own without MELODI's settings, with this tree and `site` to import from."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MELODI_")}
    paths = [str(ROOT), *([str(site)] if site else []), kept.get("PYTHONPATH", "")]
    ours = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    return kept | ours | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str | Path], *, env: dict[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """The process while the context lasts; then it is asked to end, and killed if it does not."""
    with log.open("a") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, cwd=log.parent)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path, seconds: float) -> None:
    """Until `url` answers 200; raises NotStarted."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    words = "ended" if process.poll() is not None else f"gave no answer in {seconds:.0f} s"
    lines = log.read_text(errors="replace").splitlines()[-15:]
    raise NotStarted(f"{url}: the process {words}; {log}:\n" + "\n".join(lines))


@dataclass(frozen=True)
class Engine:
    """How to start `transformers serve`."""

    python: str
    device: str
    env: dict[str, str]
    start_seconds: float = 150

    @contextmanager
    def serving(self, model: Path, port: int, log: Path, *, batching: bool) -> Iterator[str]:
        """Its URL, once it has loaded the model."""
        command = [self.python, "-c", SERVE, "serve", str(model), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--device", self.device]
        if batching:
            share = "0.02" if self.device == "cpu" else "0.5"
            command += ["--continuous-batching", "--cb-max-memory-percent", share]
        hub = log.parent / "hub"
        hub.mkdir(exist_ok=True)
        with running(command, env=self.env | {"HF_HUB_CACHE": str(hub)}, log=log) as process:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/health", process, log, self.start_seconds)
            yield url


@dataclass(frozen=True)
class Daemon:
    """A MELODI that answers."""

    api: str
    gateway: str
    log: Path

    def get(self, path: str, *, seconds: float = 60) -> Any:
        with urllib.request.urlopen(f"{self.api}{path}", timeout=seconds) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.api}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


CONFIG = """
host = "benchmark"

[api]
listen = "{api}"

[database]
url = "sqlite:///{folder}/melodi.db"

[collectors]
use = ["nvml"]

[attribution]
idle_quiet = "5s"

[[backends]]
name = "{backend}"
kind = "openai"
url = "{engine}"
listen = "{gateway}"
devices = ["{device}"]
"""


@contextmanager
def daemon(folder: Path, engine_url: str, *, device: str, env: dict[str, str]) -> Iterator[Daemon]:
    """`melodi serve` with its gateway before the engine, which is charged for `device` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    api, gateway = (f"127.0.0.1:{free_port()}" for _ in range(2))
    config, log = folder / "melodi.toml", folder / "melodi.log"
    names = {"api": api, "gateway": gateway, "folder": folder, "device": device}
    config.write_text(CONFIG.format(**names, engine=engine_url, backend=BACKEND))
    command = [sys.executable, "-c", MELODI, "serve", "--config", config]
    own = env | {"XDG_DATA_HOME": str(folder)}
    with running(command, env=own, log=log) as process:
        wait_for(f"http://{api}/healthz", process, log, 60)
        yield Daemon(f"http://{api}", f"http://{gateway}", log)


@contextmanager
def second_reader(folder: Path, device: str, *, env: dict[str, str]) -> Iterator[Path]:
    """The file that `reader.py` writes while the context lasts."""
    path = folder / "reader.txt"
    command = [sys.executable, Path(__file__).with_name("reader.py"), path, device]
    log = folder / "reader.log"
    with running(command, env=env, log=log) as process:
        end = time.monotonic() + 30
        while not (path.exists() and path.read_text().count("E ") > 1):
            if process.poll() is not None or time.monotonic() > end:
                raise NotStarted(f"the second reader sees no energy: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield path
