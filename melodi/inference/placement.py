"""Follows the processes of every backend, and the GPUs that they are on."""

from dataclasses import dataclass

from melodi.clock import NS_PER_SECOND
from melodi.inference.cpu_time import CpuMeter
from melodi.inference.discovery import Found, Presence, find, trees
from melodi.inference.processes import Process, ProcessTable

FIND_EVERY_NS = 10 * NS_PER_SECOND
"""So often the process of a backend is looked for anew, or at once where it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A backend whose processes are to be followed."""

    name: str
    url: str
    process: str | int = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a backend runs, as last seen."""

    found: Found
    root: Process | None = None
    """The process that was found; None: none was, or a cgroup was named."""
    pids: frozenset[int] = frozenset()
    """All that work for it."""
    gpus: frozenset[str] | None = None
    """The GPU domains that they are on; None where that cannot be known."""
    gpu_reason: str | None = None
    """Why the GPUs are not known."""
    cpu_time_from: str | None = None
    """`cgroup` (of its own), `processes` (each of them), or None: not known."""


class Follower:
    """The processes of one backend, from one look to the next. Not thread-safe."""

    def __init__(self, watched: Watched, table: ProcessTable) -> None:
        self.watched = watched
        self._table = table
        self._found = Found(presence=Presence.HIDDEN, reason="it has not been looked for yet")
        self._found_ns: int | None = None
        self._root: Process | None = None
        self._members: dict[int, Process] = {}
        self._meter = CpuMeter()
        self._cgroup: tuple[str, int] | None = None
        """A cgroup that holds its processes and no others, and the CPU time that it had."""

    def look(self, now_ns: int) -> tuple[Placement, int | None]:
        """Where it runs, and the CPU time that it gained since the last look, in ns.

        None where that is not known.
        """
        if self._is_due(now_ns):
            self._find(now_ns)
        self._members = self._read_members()
        gained_ns = self._gained_ns()
        placement = Placement(
            found=self._found,
            root=self._root,
            pids=frozenset(self._members),
            cpu_time_from=self._cpu_time_from,
        )
        return placement, gained_ns

    @property
    def _cpu_time_from(self) -> str | None:
        if self._found.presence is not Presence.FOUND:
            return None
        return "processes" if self._cgroup is None else "cgroup"

    def _is_due(self, now_ns: int) -> bool:
        if self._found_ns is None or now_ns - self._found_ns >= FIND_EVERY_NS:
            return True
        return self._root is not None and self._now(self._root) is None

    def _find(self, now_ns: int) -> None:
        """Look for it anew; another process than before is another tree."""
        found = find(self.watched.url, self.watched.process, self._table)
        root = self._table.read(found.roots[0]) if found.roots else None
        is_same = (
            (found.roots, found.cgroup) == (self._found.roots, self._found.cgroup)
            and (root and root.started) == (self._root and self._root.started)
        )  # fmt: skip
        if not is_same:
            self._members, self._meter, self._cgroup = {}, CpuMeter(), None
        self._found, self._found_ns, self._root = found, now_ns, root

    def _read_members(self) -> dict[int, Process]:
        kept: dict[int, Process] = {}
        if self._found.cgroup is not None:
            pids = self._table.cgroup_pids(self._found.cgroup) or frozenset()
        else:
            # Once a member always one: a worker whose parent ended still works for the backend.
            now = [self._now(one) for one in self._members.values()]
            kept = {one.pid: one for one in now if one is not None}
            pids = trees([*self._found.roots, *kept], self._table.parents())
        new = (self._table.read(pid) for pid in pids - kept.keys())
        return kept | {one.pid: one for one in new if one is not None}

    def _now(self, one: Process) -> Process | None:
        """The same process as it is now; None: it has ended."""
        now = self._table.read(one.pid)
        return now if now is not None and now.started == one.started else None

    def _gained_ns(self) -> int | None:
        """By its cgroup where it has one to itself since the last look, else by its processes."""
        if self._found.presence is not Presence.FOUND:
            return None
        by_processes_ns = self._meter.gained_ns(self._members)
        before, self._cgroup = self._cgroup, self._read_cgroup()
        if before and self._cgroup and before[0] == self._cgroup[0]:
            return max(0, self._cgroup[1] - before[1])
        return by_processes_ns

    def _read_cgroup(self) -> tuple[str, int] | None:
        path = self._found.cgroup
        if path is None and self._root is not None:
            path = self._table.cgroup_of(self._root.pid)
            if path is None or self._table.cgroup_pids(path) != frozenset(self._members):
                return None
        used_ns = None if path is None else self._table.cgroup_cpu_ns(path)
        return None if path is None or used_ns is None else (path, used_ns)
