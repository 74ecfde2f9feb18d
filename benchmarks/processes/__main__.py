"""Prints how much of a core it takes to look at all processes once a second.

Run it as `python -m benchmarks.processes`: real processes that sleep, on this host as it is.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from collectors.base import Domain, Kind, Measure
from melodi.clock import SystemClock
from melodi.config import BackendSettings
from melodi.daemon.backends import Backends
from melodi.daemon.discovery import Discovery
from melodi.inference.processes import HostProcesses

LOOKS = 50
SERVER = """
import socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 0))
children = [subprocess.Popen(["sleep", "600"]) for _ in range(int(sys.argv[1]))]
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
for one in children:
    one.kill()
"""
PACKAGE = Domain(
    name="package:0", kind=Kind.CPU, scope="package", source="none", measure=Measure.COUNTER
)


@contextlib.contextmanager
def server(children: int) -> Iterator[str]:
    """A process that listens and has so many children; gives its url."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(children)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"


def cost(backends: int, children: int) -> tuple[float, float]:
    """CPU milliseconds of a look, and of one that finds the processes anew."""
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(server(children)) for _ in range(backends)]
        settings = [
            BackendSettings(name=f"b{k}", kind="vllm", url=url) for k, url in enumerate(urls)
        ]
        known = Backends(settings, [PACKAGE])
        discovery = Discovery(
            known.watched(),
            table=HostProcesses(),
            gpus=lambda: None,
            domains=lambda: [PACKAGE],
            clock=SystemClock(),
            on_placed=known.place,
            on_usage=lambda _: None,
        )
        discovery.look()
        begun = time.thread_time()
        for _ in range(LOOKS):
            discovery.look()
        each = (time.thread_time() - begun) / LOOKS
        table = HostProcesses()
        begun = time.thread_time()
        for url in urls:
            table.listening("127.0.0.1", int(url.rpartition(":")[2]))
        return each * 1_000, (time.thread_time() - begun) * 1_000


def main() -> None:
    """One line for each number of backends and of processes."""
    print(f"{len(psutil.pids())} processes before; percents are of one core")
    print("backends  children each    a look   once a second   finding, each 10 s")
    for backends, children in ((1, 0), (1, 10), (1, 50), (4, 10)):
        look_ms, find_ms = cost(backends, children)
        percent, find_percent = look_ms / 10, find_ms / 100
        print(
            f"{backends:8}  {children:13}  {look_ms:5.2f} ms  {percent:12.2f} %  "
            f"{find_ms:7.1f} ms {find_percent:5.2f} %"
        )


if __name__ == "__main__":
    main()
