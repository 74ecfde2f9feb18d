"""What is compared: each candidate in a process of its own, in front of one upstream."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.gateway import litellm
from benchmarks.gateway.daemon import daemon
from benchmarks.gateway.processes import REPOSITORY, family, free_port, memory_bytes, running
from benchmarks.gateway.wire import HOST

DIRECT, MELODI, UNRECORDED = "direct", "MELODI", "MELODI, no recorder"
BARE, USUAL, LITELLM = "aiohttp, bare", "FastAPI + httpx", "LiteLLM"


@dataclass(frozen=True)
class Candidate:
    """Something that answers on a port."""

    name: str
    port: int
    process: psutil.Process | None = None
    """None: the upstream itself."""
    settle: Callable[[], None] = lambda: None
    """Waits until the work that its requests left behind is done."""

    @property
    def cpu_seconds(self) -> float:
        """CPU time that it has used, its threads and processes included."""
        used = [one.cpu_times() for one in family(self.process)]
        return float(sum(one.user + one.system for one in used))

    @property
    def memory_mib(self) -> float:
        return memory_bytes(self.process) / 2**20


@contextlib.contextmanager
def upstream() -> Iterator[int]:
    """The port of a zero-delay upstream."""
    command = [sys.executable, "-m", "benchmarks.gateway.upstream"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


@contextlib.contextmanager
def candidates(
    folder: Path, upstream_port: int, *, with_litellm: bool
) -> Iterator[list[Candidate]]:
    """All that are compared, answering while the context lasts."""
    url = f"http://{HOST}:{upstream_port}"
    with contextlib.ExitStack() as stack:
        melodi = stack.enter_context(daemon(folder, url))
        found = [
            Candidate(DIRECT, upstream_port),
            Candidate(MELODI, melodi.gateway_port, melodi.process, melodi.settle),
        ]
        for name, module in (
            (UNRECORDED, "unrecorded"),
            (BARE, "passthrough_aiohttp"),
            (USUAL, "passthrough_fastapi"),
        ):
            port = free_port()
            command = [sys.executable, "-m", f"benchmarks.gateway.{module}", str(port), url]
            found.append(stack.enter_context(_started(name, command, port, folder)))
        if with_litellm:
            port = free_port()
            command = litellm.command(folder, upstream_url=url, port=port)
            found.append(stack.enter_context(_started(LITELLM, command, port, folder)))
        yield found


@contextlib.contextmanager
def _started(name: str, command: list[str | Path], port: int, folder: Path) -> Iterator[Candidate]:
    environment = litellm.ENVIRONMENT if name == LITELLM else {}
    with running(
        command,
        url=f"http://{HOST}:{port}/v1/models",
        log=folder / f"{port}.log",
        environment=environment,
    ) as process:
        yield Candidate(name, port, psutil.Process(process.pid))
