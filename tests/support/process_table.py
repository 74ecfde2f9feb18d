"""A table of processes that a test fills in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from melodi.clock import NS_PER_SECOND
from melodi.inference.processes import Listening, Process


class FakeProcesses:
    """Processes, ports and cgroups as a test says; CPU time passes where it is spent."""

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self.ports: dict[tuple[str, int], set[int]] = {}
        """Who listens on an address of this host, by address and port."""
        self.inside: dict[tuple[str, int], set[int]] = {}
        """Who listens in the network of a container."""
        self.hidden: set[int] = set()
        """Ports on which somebody listens whom we may not see."""
        self.forwarded: set[int] = set()
        """Ports that answer though nobody listens."""
        self.commands: dict[int, list[str]] = {}
        self.cgroups: dict[str, set[int]] = {}
        self.cgroup_ns: dict[str, int] = {}
        self._busy_ns = 0
        self._started = 0.0

    def start(self, pid: int, name: str = "server", *, parent: int = 1) -> int:
        self._started += 1
        self.processes[pid] = Process(
            pid=pid, parent=parent, name=name, started=self._started, own_ns=0, children_ns=0
        )
        return pid

    def spend(self, pid: int, seconds: float) -> None:
        """Let a process use a CPU for so long."""
        used_ns = round(seconds * NS_PER_SECOND)
        one = self.processes[pid]
        self.processes[pid] = replace(one, own_ns=one.own_ns + used_ns)
        self._busy_ns += used_ns
        for path, pids in self.cgroups.items():
            if pid in pids:
                self.cgroup_ns[path] = self.cgroup_ns.get(path, 0) + used_ns

    def end(self, pid: int, *, reaped: bool = True) -> None:
        """End a process; its parent takes its CPU time over if it waited for it."""
        gone = self.processes.pop(pid)
        for other, one in list(self.processes.items()):
            if one.parent == pid:
                self.processes[other] = replace(one, parent=1)
        for pids in (*self.ports.values(), *self.cgroups.values()):
            pids.discard(pid)
        parent = self.processes.get(gone.parent)
        if parent is not None and reaped:
            whole_ns = parent.children_ns + gone.own_ns + gone.children_ns
            self.processes[parent.pid] = replace(parent, children_ns=whole_ns)

    def parents(self) -> Mapping[int, int]:
        return {pid: one.parent for pid, one in self.processes.items()}

    def read(self, pid: int) -> Process | None:
        return self.processes.get(pid)

    def command(self, pid: int) -> Sequence[str]:
        return self.commands.get(pid, [])

    def busy_ns(self) -> int:
        return self._busy_ns

    def listening(self, host: str, port: int) -> Listening:
        return Listening(
            pids=frozenset(self.ports.get((host, port), ())),
            is_here=host in ("127.0.0.1", "localhost"),
            is_hidden=port in self.hidden,
        )

    def listens(self, pid: int, port: int) -> bool:
        return any(
            pid in pids and number == port
            for (_, number), pids in (*self.ports.items(), *self.inside.items())
        )

    def elsewhere(self, address: str | None, port: int) -> frozenset[int]:
        return frozenset(
            pid
            for (place, number), pids in self.inside.items()
            if number == port and address in (None, place)
            for pid in pids
        )

    def answers(self, host: str, port: int) -> bool:
        return port in self.forwarded

    def cgroup_of(self, pid: int) -> str | None:
        return next((path for path, pids in self.cgroups.items() if pid in pids), None)

    def cgroup_pids(self, path: str) -> frozenset[int] | None:
        pids = self.cgroups.get(path)
        return None if pids is None else frozenset(pids)

    def cgroup_cpu_ns(self, path: str) -> int | None:
        return self.cgroup_ns.get(path, 0) if path in self.cgroups else None
