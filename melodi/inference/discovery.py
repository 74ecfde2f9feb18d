"""Finds the process behind a backend's URL, or says why it cannot be found and what to do."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from melodi.inference.processes import ProcessTable

CONTAINER_PORTS = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta", "pasta.avx2"})
"""They listen for a container, and do none of its work."""
FORWARDERS = frozenset(
    {"ssh", "sshd", "socat", "kubectl", "nginx", "haproxy", "caddy", "traefik", "envoy"}
)
"""They pass traffic on to a server that may be anywhere."""
BY_HAND = 'process = PID or process = "cgroup:/PATH"'
SEE = "see docs/how-to/backends-and-devices.md"


class Presence(StrEnum):
    """What is known of a backend's processes."""

    FOUND = "found"
    ABSENT = "absent"
    """Nobody listens there."""
    HIDDEN = "hidden"
    """It cannot be known from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a backend's work is done, as far as it can be known."""

    presence: Presence
    roots: tuple[int, ...] = ()
    """The processes whose descendants do the work, too."""
    cgroup: str | None = None
    """Where all of a cgroup does the work."""
    how: str | None = None
    """`port`, `container` (its port in another network), `pid` or `cgroup` (named)."""
    reason: str | None = None
    remedy: str | None = None


def find(url: str, process: str | int, table: ProcessTable) -> Found:
    """Who works for the backend at `url`; `process` is "auto", a pid, or "cgroup:/path"."""
    if isinstance(process, int):
        return _by_pid(process, table)
    if process.startswith("cgroup:"):
        return _by_cgroup(process.removeprefix("cgroup:"), table)
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return _by_port(host, port, table)


def trees(roots: Iterable[int], parents: Mapping[int, int]) -> frozenset[int]:
    """The processes among `roots` that exist, and all that descend from them."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, parent in parents.items():
        children[parent].append(pid)
    found: set[int] = set()
    coming = [pid for pid in roots if pid in parents]
    while coming:
        pid = coming.pop()
        if pid not in found:
            found.add(pid)
            coming += children[pid]
    return frozenset(found)


def _by_pid(pid: int, table: ProcessTable) -> Found:
    if table.read(pid) is None:
        return Found(
            presence=Presence.ABSENT,
            reason=f"there is no process {pid}",
            remedy='name the one that runs now, or "auto", or a cgroup, which outlives restarts',
        )
    return Found(presence=Presence.FOUND, roots=(pid,), how="pid")


def _by_cgroup(path: str, table: ProcessTable) -> Found:
    pids = table.cgroup_pids(path)
    if pids is None:
        return Found(
            presence=Presence.HIDDEN,
            reason=f"there is no cgroup {path}",
            remedy="take the path after 0:: in /proc/PID/cgroup of the server, as the host sees it",
        )
    if not pids:
        return Found(presence=Presence.ABSENT, cgroup=path, reason=f"cgroup {path} is empty")
    return Found(presence=Presence.FOUND, cgroup=path, how="cgroup")


def _by_port(host: str, port: int, table: ProcessTable) -> Found:
    listening = table.listening(host, port)
    if not listening.is_here:
        found = table.elsewhere(host, port)
        return _in_container(found, port, table) if found else _not_here(host)
    if listening.pids:
        return _behind(_tops(listening.pids, port, table), port, table)
    if listening.is_hidden:
        return Found(
            presence=Presence.HIDDEN,
            reason=f"somebody listens on port {port}, and this user may not see who",
            remedy="name its cgroup, which takes no right: "
            f'process = "cgroup:/system.slice/NAME.service"; or run melodi as root; {SEE}',
        )
    if not table.answers(host, port):
        return Found(
            presence=Presence.ABSENT,
            reason=f"nobody listens on port {port}",
            remedy="start it or mend its url",
        )
    # The kernel itself forwards the port: most containers keep its number inside.
    found = table.elsewhere(None, port)
    return _in_container(found, port, table) if len(found) == 1 else _in_unknown(port)


def _behind(pids: Sequence[int], port: int, table: ProcessTable) -> Found:
    """Those who listen, or for whom they do."""
    names = {pid: one.name for pid in pids if (one := table.read(pid)) is not None}
    for pid, name in names.items():
        if name in FORWARDERS:
            return Found(
                presence=Presence.HIDDEN,
                reason=f"{name} (pid {pid}) listens on port {port} and passes it on",
                remedy=f"let url name the server itself, or say which it is: {BY_HAND}; {SEE}",
            )
        if name in CONTAINER_PORTS:
            address, inside = _target(table.command(pid), port)
            found = table.elsewhere(address, inside)
            is_sure = address is not None or len(found) == 1
            return _in_container(found, inside, table) if found and is_sure else _in_unknown(port)
    return Found(presence=Presence.FOUND, roots=tuple(pids), how="port")


def _in_container(pids: Iterable[int], port: int, table: ProcessTable) -> Found:
    return Found(presence=Presence.FOUND, roots=_tops(pids, port, table), how="container")


def _tops(pids: Iterable[int], port: int, table: ProcessTable) -> tuple[int, ...]:
    """The processes that opened the port, for those that only inherited it.

    A server with several workers opens it in the process that starts them all.
    """
    parents = table.parents()
    tops = set()
    for pid in pids:
        top = pid
        while (parent := parents.get(top, 0)) > 1 and table.listens(parent, port):
            top = parent
        tops.add(top)
    return tuple(sorted(top for top in tops if not _descends(top, tops, parents)))


def _descends(pid: int, others: Iterable[int], parents: Mapping[int, int]) -> bool:
    seen = {pid}
    while (pid := parents.get(pid, 0)) and pid not in seen:
        if pid in others:
            return True
        seen.add(pid)
    return False


def _target(command: Sequence[str], port: int) -> tuple[str | None, int]:
    """The address and port that docker-proxy serves; others do not tell theirs."""
    told = dict(re.findall(r"-(container-ip|container-port)[ =](\S+)", " ".join(command)))
    return told.get("container-ip"), int(told.get("container-port", port))


def _not_here(host: str) -> Found:
    return Found(
        presence=Presence.HIDDEN,
        reason=f"{host} is no address of this host, nor of a container that can be seen",
        remedy=f"if the server runs here, name it: {BY_HAND}; if not, run melodi there, "
        f"and here set devices = [] for it; {SEE}",
    )


def _in_unknown(port: int) -> Found:
    return Found(
        presence=Presence.HIDDEN,
        reason=f"port {port} is forwarded to a container, and its server cannot be seen",
        remedy=f"run melodi as root outside of containers, or name it: {BY_HAND}; "
        "see docs/how-to/containers.md",
    )
