"""Processes of a benchmark: a port for each, and a wait until it answers there."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.gateway.wire import HOST

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    *,
    url: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers at `url` while the context lasts; it talks into the file `log`."""
    environment = dict(os.environ) | dict(environment or {})
    with log.open("wb") as talk:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=talk, stderr=talk, cwd=REPOSITORY,
            env=environment,
        )  # fmt: skip
        try:
            wait_until(lambda: _answers(process, url, log), seconds=START_SECONDS)
            yield process
        finally:
            process.terminate()
            process.wait(30)


def family(process: psutil.Process | None) -> list[psutil.Process]:
    """A process and those that work for it now."""
    return [] if process is None else [process, *process.children(recursive=True)]


def memory_bytes(process: psutil.Process | None) -> int:
    """Of a process and those that work for it."""
    return sum(int(one.memory_info().rss) for one in family(process))


def descriptors(process: psutil.Process | None) -> int:
    """Open in a process and those that work for it."""
    return sum(int(one.num_fds()) for one in family(process))


def wait_until(holds: Callable[[], bool], *, seconds: float) -> None:
    """Come back once `holds()`; TimeoutError where it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for {holds}")
        time.sleep(0.05)


def _answers(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"{process.args} ended at its start:\n{log.read_text()[-2000:]}")
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
