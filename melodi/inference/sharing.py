"""The parts that backends had in the work of CPUs and GPUs, from what their processes used (pure).

MEASUREMENT, section 4: on CPUs the part in all busy CPU time, on GPUs the part in SM time. A part
that cannot be told is left out, never 0 or 1: the ledger gives a backend in service without one
what the others leave, and says so.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

FOREIGN_ESTIMATED = "foreign_estimated"
SPLIT_ESTIMATED = "split_estimated"


@dataclass(frozen=True, slots=True)
class Parts:
    """Each backend's part, 0..1, and what they were estimated from, if so."""

    shares: Mapping[str, float]
    reason: str | None = None


def cpu_parts(gained_ns: Mapping[str, int | None], busy_ns: int) -> Parts | None:
    """Parts in the CPU time that the host spent in a stretch; None where none is known."""
    known = {name: ns for name, ns in gained_ns.items() if ns is not None}
    # The host's time is counted by ticks and may fall behind that of its processes.
    whole_ns = max(busy_ns, sum(known.values()))
    if not known or whole_ns <= 0:
        return None
    return Parts({name: ns / whole_ns for name, ns in known.items()})


def gpu_parts(
    owners: Mapping[str, Collection[int]],
    *,
    running: Collection[int],
    busy: Mapping[int, int] | None,
) -> Parts | None:
    """Parts in the SM time of one GPU, with these pids running and so much of it had by each.

    `owners` are the pids of each backend that is known. One without anybody beside it has all of
    it; None where nobody is there, or where it is not known who did what.
    """
    here = {name: set(pids) & set(running) for name, pids in owners.items()}
    users = [name for name, pids in here.items() if pids]
    foreign = set(running).difference(*here.values())
    if not users:
        return None
    nobody = dict.fromkeys(owners, 0.0)
    if len(users) == 1 and not foreign:
        return Parts(nobody | {users[0]: 1.0})
    whole = sum(busy.values()) if busy else 0
    if not busy or whole == 0:
        return None
    shares = {name: sum(busy.get(pid, 0) for pid in owners[name]) / whole for name in owners}
    return Parts(shares, FOREIGN_ESTIMATED if foreign else SPLIT_ESTIMATED)
