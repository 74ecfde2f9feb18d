"""The processes of this host: who listens, who descends from whom, and their CPU time."""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from melodi.clock import NS_PER_SECOND

CGROUP_MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
CONNECT_SECONDS = 1.0
_LISTEN = "0A"
"""How the kernel writes that a socket listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process as it is now."""

    pid: int
    parent: int
    name: str
    started: float
    """Tells it from another process that has its pid later."""
    own_ns: int
    """CPU time of all its threads since it began."""
    children_ns: int
    """CPU time of its children that ended, and of theirs."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Who listens on an address."""

    pids: frozenset[int] = frozenset()
    is_here: bool = True
    """Whether the address is one of this host's, as seen from here."""
    is_hidden: bool = False
    """Somebody listens whom this process may not see."""


class ProcessTable(Protocol):
    """What can be known of processes; None: it is gone, or may not be seen."""

    def parents(self) -> Mapping[int, int]:
        """The parent of every process, by pid."""
        ...

    def read(self, pid: int) -> Process | None: ...

    def command(self, pid: int) -> Sequence[str]: ...

    def busy_ns(self) -> int:
        """CPU time of all processors of the host, spent on anything but idling."""
        ...

    def listening(self, host: str, port: int) -> Listening: ...

    def listens(self, pid: int, port: int) -> bool: ...

    def elsewhere(self, address: str | None, port: int) -> frozenset[int]:
        """Who listens on a port in another network namespace: in the one of `address`, or any."""
        ...

    def answers(self, host: str, port: int) -> bool:
        """Whether a connection can be made."""
        ...

    def cgroup_of(self, pid: int) -> str | None: ...

    def cgroup_pids(self, path: str) -> frozenset[int] | None:
        """The processes of a cgroup and of those in it."""
        ...

    def cgroup_cpu_ns(self, path: str) -> int | None: ...


class HostProcesses:
    """The processes of this Linux host, by psutil, and its cgroups of version 2."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}
        self._cgroups = next(
            (one for one in CGROUP_MOUNTS if (one / "cgroup.procs").exists()), CGROUP_MOUNTS[0]
        )

    def parents(self) -> Mapping[int, int]:
        # Asking every process each second would cost more than all meters: only new ones are.
        known = {}
        for pid in psutil.pids():
            parent = self._parents.get(pid)
            if parent is None:
                parent = _parent(pid)
            if parent is not None:
                known[pid] = parent
        self._parents = known
        return known

    def read(self, pid: int) -> Process | None:
        try:
            one = psutil.Process(pid)
            with one.oneshot():
                times = one.cpu_times()
                return Process(
                    pid=pid,
                    parent=one.ppid(),
                    name=one.name(),
                    started=one.create_time(),
                    own_ns=round((times.user + times.system) * NS_PER_SECOND),
                    children_ns=round(
                        (times.children_user + times.children_system) * NS_PER_SECOND
                    ),
                )
        except psutil.Error:
            return None

    def command(self, pid: int) -> Sequence[str]:
        try:
            return psutil.Process(pid).cmdline()
        except psutil.Error:
            return ()

    def busy_ns(self) -> int:
        times = psutil.cpu_times()
        # On Linux `user` and `nice` already hold the time of guests; stolen time is not ours.
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        return round(busy * NS_PER_SECOND)

    def listening(self, host: str, port: int) -> Listening:
        wanted = _addresses(host)
        here = [
            one.pid
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr
            if one.laddr.port == port and _covers(one.laddr.ip, wanted)
        ]
        return Listening(
            pids=frozenset(pid for pid in here if pid is not None),
            is_here=not wanted or not wanted.isdisjoint(_own_addresses()),
            is_hidden=None in here,
        )

    def listens(self, pid: int, port: int) -> bool:
        return not _listening_sockets(pid, port).isdisjoint(_files(pid))

    def elsewhere(self, address: str | None, port: int) -> frozenset[int]:
        ours = _namespace("self")
        wanted = None if address is None else _addresses(address)
        members: dict[int, list[int]] = {}
        for pid in psutil.pids():
            namespace = _namespace(pid)
            if namespace is not None and namespace != ours:
                members.setdefault(namespace, []).append(pid)
        found: set[int] = set()
        for pids in members.values():
            sockets = _listening_sockets(pids[0], port)
            if wanted is None or not wanted.isdisjoint(_namespace_addresses(pids[0])):
                found.update(pid for pid in pids if not sockets.isdisjoint(_files(pid)))
        return frozenset(found)

    def answers(self, host: str, port: int) -> bool:
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        except OSError:
            return False
        return True

    def cgroup_of(self, pid: int) -> str | None:
        lines = _lines(Path(f"/proc/{pid}/cgroup"))
        return next((line[3:] for line in lines if line.startswith("0::/")), None)

    def cgroup_pids(self, path: str) -> frozenset[int] | None:
        folder = self._folder(path)
        if not folder.is_dir():
            return None
        files = [folder / "cgroup.procs", *folder.glob("**/cgroup.procs")]
        return frozenset(int(line) for file in files for line in _lines(file))

    def cgroup_cpu_ns(self, path: str) -> int | None:
        for line in _lines(self._folder(path) / "cpu.stat"):
            name, _, microseconds = line.partition(" ")
            if name == "usage_usec":
                return int(microseconds) * 1_000
        return None

    def _folder(self, path: str) -> Path:
        return self._cgroups / path.lstrip("/")


def _parent(pid: int) -> int | None:
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return None


def _addresses(host: str) -> set[str]:
    """The addresses that a name stands for; none where it cannot be resolved."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {_plain(str(one[4][0])) for one in found}


def _own_addresses() -> set[str]:
    return {
        _plain(one.address)
        for interface in psutil.net_if_addrs().values()
        for one in interface
        if one.family in (socket.AF_INET, socket.AF_INET6)
    } | {"127.0.0.1"}


def _covers(listening: str, wanted: Collection[str]) -> bool:
    address = _plain(listening)
    return address in wanted or ipaddress.ip_address(address).is_unspecified


def _plain(address: str) -> str:
    """Without the interface, and version 4 where it is written as version 6."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _namespace(pid: int | str) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None


def _namespace_addresses(pid: int) -> set[str]:
    """The addresses of the network namespace that a process is in."""
    routes = "\n".join(_lines(Path(f"/proc/{pid}/net/fib_trie")))
    found = set(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", routes))
    for line in _lines(Path(f"/proc/{pid}/net/if_inet6")):
        found.add(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    return found


def _listening_sockets(pid: int, port: int) -> set[str]:
    """The sockets that listen on a port, in the network namespace that a process is in.

    psutil looks in our own namespace alone.
    """
    found = set()
    for name in ("tcp", "tcp6"):
        for line in _lines(Path(f"/proc/{pid}/net/{name}"))[1:]:
            words = line.split()
            if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{words[9]}]")
    return found


def _files(pid: int) -> set[str]:
    """What a process has open; none where it is gone or may not be seen."""
    found = set()
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed in the meantime
                found.add(str(one.readlink()))
    return found


def _lines(path: Path) -> list[str]:
    """The lines of a file of the kernel; none where it is gone or may not be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
