"""The table of processes, on real ones: servers with children, cgroups, network namespaces."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process_table import FakeProcesses

from melodi.clock import NS_PER_SECOND
from melodi.inference.discovery import Presence, find, trees
from melodi.inference.placement import Follower, Watched
from melodi.inference.processes import HostProcesses, ProcessTable

SERVER = """
import socket, subprocess, sys, time
listener = socket.create_server(("127.0.0.1", 0))
burn = "import sys\\nfor _ in sys.stdin: sum(range(10_000_000)); print('done', flush=True)"
child = subprocess.Popen(
    [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
print(listener.getsockname()[1], child.pid, flush=True)
for line in sys.stdin:
    if line == "end\\n":
        child.kill()
        child.wait()
    else:
        print("work", file=child.stdin, flush=True)
        child.stdout.readline()
    print("done", flush=True)
"""
"""Listens, and lets a child burn CPU, or ends it, when told to."""


class Server:
    """A real server process and its child."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.port, self.child = (int(word) for word in self._line().split())

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        print(word, file=self._process.stdin, flush=True)
        assert self._line() == "done\n"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def serving(*before: str) -> Iterator[Server]:
    """A server, started by the command `before` it; its children end with it."""
    with subprocess.Popen(
        [*before, sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        server = Server(process)
        try:
            yield server
        finally:
            if server.child in HostProcesses().parents():
                os.kill(server.child, 9)
            process.kill()


def test_a_real_server_is_found_by_its_port_with_its_child() -> None:
    """By name, whatever stands in the url."""
    table = HostProcesses()
    with serving() as server:
        found = find(f"http://localhost:{server.port}", "auto", table)
        assert (found.presence, found.roots) == (Presence.FOUND, (server.pid,))
        assert trees(found.roots, table.parents()) == {server.pid, server.child}
    assert find(f"http://127.0.0.1:{server.port}", "auto", table).presence is Presence.ABSENT
    assert table.read(server.pid) is None


def test_the_cpu_time_of_a_child_is_told_while_it_lives_and_once_it_ended() -> None:
    """As the kernel tells it of the child, to a tick of each; nothing is counted twice."""
    table = HostProcesses()
    with serving() as server:
        follower = Follower(Watched(name="b", url=f"http://127.0.0.1:{server.port}"), table)
        follower.look(0)
        before = _cpu_ns(table, server)
        server.tell("burn")
        alive_ns = follower.look(1)[1]
        assert alive_ns is not None
        assert alive_ns == pytest.approx(_cpu_ns(table, server) - before, abs=40_000_000)
        assert alive_ns > NS_PER_SECOND // 20
        server.tell("burn")
        server.tell("end")
        ended_ns = follower.look(2)[1]
        assert ended_ns == pytest.approx(_cpu_ns(table, server) - before - alive_ns, abs=60_000_000)
        assert ended_ns > NS_PER_SECOND // 20
        assert follower.look(3)[1] == pytest.approx(0, abs=20_000_000)


def _cpu_ns(table: ProcessTable, server: Server) -> int:
    known = [one for pid in (server.pid, server.child) if (one := table.read(pid)) is not None]
    return sum(one.own_ns + one.children_ns for one in known)


def test_the_busy_time_of_the_host_holds_that_of_its_processes() -> None:
    """It grows at least by what a process used, to a few ticks."""
    table = HostProcesses()
    with serving() as server:
        before = table.busy_ns(), _cpu_ns(table, server)
        for _ in range(5):
            server.tell("burn")
        busy_ns, used_ns = table.busy_ns() - before[0], _cpu_ns(table, server) - before[1]
    assert used_ns > 0
    assert busy_ns > 0.8 * used_ns


def test_new_processes_are_seen_and_ended_ones_forgotten() -> None:
    """Only new ones are asked for their parent."""
    table = HostProcesses()
    assert table.parents()[os.getpid()] == os.getppid()
    with serving() as server:
        assert table.parents()[server.child] == server.pid
    assert server.pid not in table.parents()


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="makes a cgroup or a network of its own; run as root"
)


@needs_root
def test_a_server_in_a_network_of_its_own_is_found_by_its_address() -> None:
    """As that of a container; another port or address leads nowhere."""
    table = HostProcesses()
    with serving("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh") as server:
        assert table.elsewhere("127.0.0.1", server.port) == {server.pid}
        assert table.elsewhere(None, server.port) == {server.pid}
        assert table.elsewhere("192.0.2.1", server.port) == frozenset()
        assert table.elsewhere("127.0.0.1", 9) == frozenset()
        assert table.listening("127.0.0.1", server.port).pids == frozenset()


def test_an_address_of_another_machine_is_not_here() -> None:
    """One that cannot be resolved may be."""
    table = HostProcesses()
    assert not table.listening("192.0.2.1", 80).is_here
    assert table.listening("127.0.0.1", 80).is_here
    assert table.listening("::1", 80).is_here


@pytest.fixture
def cgroup() -> Iterator[tuple[str, Path]]:
    """A cgroup of version 2, as the table names it and where it lies."""
    mounted = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
    root = next((one for one in mounted if (one / "cgroup.procs").exists()), None)
    if root is None or not os.access(root, os.W_OK):
        pytest.skip("needs cgroups of version 2 that may be written; run as root")
    folder = root / f"melodi-test-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs cgroups of version 2 that may be written ({error}); run as root")
    yield f"/{folder.name}", folder
    deadline = time.monotonic() + 10
    while (folder / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    folder.rmdir()


@needs_root
def test_a_real_cgroup_of_its_own_tells_its_cpu_time(cgroup: tuple[str, Path]) -> None:
    """As `cpu.stat` has it, with the child that ended."""
    path, folder = cgroup
    table = HostProcesses()
    enter = ("sh", "-c", f'echo $$ > {folder}/cgroup.procs; exec "$@"', "sh")
    with serving(*enter) as server:
        assert table.cgroup_of(server.pid) == path
        assert table.cgroup_pids(path) == {server.pid, server.child}
        follower = Follower(Watched(name="b", url=f"http://127.0.0.1:{server.port}"), table)
        assert follower.look(0)[0].cpu_time_from == "cgroup"
        before_ns = table.cgroup_cpu_ns(path)
        server.tell("burn")
        server.tell("end")
        gained_ns, after_ns = follower.look(1)[1], table.cgroup_cpu_ns(path)
        assert before_ns is not None
        assert after_ns is not None
        assert gained_ns == pytest.approx(after_ns - before_ns, abs=20_000_000)
        assert gained_ns > NS_PER_SECOND // 20
    assert table.cgroup_pids("/no-such-cgroup") is None


# ---- one contract, kept by the real table and by the fake ----------------------------------


def _real() -> tuple[ProcessTable, int]:
    return HostProcesses(), os.getpid()


def _fake() -> tuple[ProcessTable, int]:
    table = FakeProcesses()
    return table, table.start(10, parent=1)


@pytest.fixture(params=[_real, _fake])
def known(request: pytest.FixtureRequest) -> tuple[ProcessTable, int]:
    """A table, and the pid of a process in it."""
    make: Callable[[], tuple[ProcessTable, int]] = request.param
    return make()


def test_a_process_that_is_there_is_known(known: tuple[ProcessTable, int]) -> None:
    """The same parent everywhere, and the same start at each look."""
    table, pid = known
    one = table.read(pid)
    assert one is not None
    assert table.parents()[pid] == one.parent
    again = table.read(pid)
    assert again is not None
    assert again.started == one.started
    assert again.own_ns >= one.own_ns
    assert table.busy_ns() >= 0


def test_a_process_that_is_not_there_is_unknown(known: tuple[ProcessTable, int]) -> None:
    """None or nothing, and no error."""
    table, _ = known
    nobody = 2**22 + 1
    assert table.read(nobody) is None
    assert nobody not in table.parents()
    assert list(table.command(nobody)) == []
    assert table.cgroup_of(nobody) is None
    assert not table.listens(nobody, 80)
    assert table.cgroup_pids("/no-such-cgroup") is None
    assert table.cgroup_cpu_ns("/no-such-cgroup") is None
    assert table.elsewhere("192.0.2.1", 9) == frozenset()
    assert table.listening("127.0.0.1", 9).pids == frozenset()
    assert not table.answers("127.0.0.1", 9)
