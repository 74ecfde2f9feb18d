"""How much CPU time a set of processes gained, those that ended on the way included (pure)."""

from collections import defaultdict
from collections.abc import Mapping

from melodi.inference.processes import Process


class CpuMeter:
    """The CPU time of a tree of processes from one look at it to the next.

    What a process had done when it ended goes to its parent's account of ended children, if the
    parent waited for it: that account tells of processes that nobody ever looked at, too.
    """

    def __init__(self) -> None:
        self._before: Mapping[int, Process] | None = None

    def gained_ns(self, now: Mapping[int, Process]) -> int | None:
        """CPU time since the last look, in ns; None at the first."""
        before, self._before = self._before, dict(now)
        if before is None:
            return None
        gained_ns = 0
        ended_ns: defaultdict[int, int] = defaultdict(int)
        for pid, one in before.items():
            if not _is_same(one, now.get(pid)):
                ended_ns[one.parent] += one.own_ns + one.children_ns
        for pid, one in now.items():
            last = before.get(pid)
            if last is None or not _is_same(last, one):
                gained_ns += one.own_ns + one.children_ns
                continue
            gained_ns += max(0, one.own_ns - last.own_ns)
            gained_ns += max(0, one.children_ns - last.children_ns - ended_ns[pid])
        return gained_ns


def _is_same(one: Process, other: Process | None) -> bool:
    return other is not None and one.started == other.started
