"""Goes through kept bins and requests once more, as if another policy had been set."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from melodi.energy.accounts import MinuteAccounts, MinuteSums
from melodi.energy.bins import Bin
from melodi.energy.ledger import LATEST_NS, Ledger
from melodi.energy.policies import Policy
from melodi.energy.total import RequestEnergy
from melodi.store.kept import Kept, KeptRequest

DomainMinute = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Stay:
    """Between which minutes a request's joules are booked."""

    first: int
    last: int
    whole: bool
    """All bins that it was in are kept."""


@dataclass(slots=True)
class Replay:
    """What the books say when they are kept anew."""

    minutes: dict[DomainMinute, MinuteAccounts] = field(default_factory=dict)
    energies: dict[str, RequestEnergy] = field(default_factory=dict)
    stays: dict[str, Stay] = field(default_factory=dict)
    """Of each request that was in a kept bin."""


def replay(parts: Iterable[Kept], policies: Callable[[], Sequence[Policy]]) -> Replay:
    """Keep the books of all `parts` anew; `policies` gives fresh ones, for they learn.

    Each session has a clock and counters of its own, and so books of its own. Bins go into the
    minutes that they were booked in, by the idle power that they were split by.
    """
    sessions: dict[str, list[Kept]] = defaultdict(list)
    for part in parts:
        sessions[part.session].append(part)
    result, sums = Replay(), MinuteSums()
    for session in sessions.values():
        session.sort(key=lambda one: one.number)
        _replay_session(session, policies, result, sums)
    result.minutes = {(one.domain, one.minute): one for one in sums.take()}
    return result


def _replay_session(
    parts: Sequence[Kept],
    policies: Callable[[], Sequence[Policy]],
    result: Replay,
    sums: MinuteSums,
) -> None:
    facts = {one.name: one for part in parts for one in part.facts}
    ledger = Ledger(facts.values(), policies=policies)
    requests = [one for part in parts for one in part.requests]
    for one in sorted(requests, key=lambda one: one.sent_ns):
        ledger.begin(one.span.request, one.domains, one.sent_ns)
    end_ns = 0
    bins: dict[str, list[Bin]] = defaultdict(list)
    for bin_ in (one for part in parts for one in part.bins):
        ledger.add(bin_)
        bins[bin_.domain].append(bin_)
        end_ns = max(end_ns, bin_.end_ns)
    for one in requests:
        ledger.end(one.span.request, one.span)
        end_ns = max(end_ns, one.span.service.end_ns)
    closing = ledger.advance(end_ns + LATEST_NS, wall_offset_ns=0)
    sums.add(closing.minutes)
    result.energies |= closing.final
    shelves = {name: _Shelf(some) for name, some in bins.items()}
    for one in requests:
        if (stay := _stay(one, shelves)) is not None:
            result.stays[one.span.request] = stay


class _Shelf:
    """The kept bins of one domain in one session, in order."""

    def __init__(self, bins: Sequence[Bin]) -> None:
        self._bins = bins
        self._starts_ns = [one.start_ns - one.half_width_ns for one in bins]
        self._ends_ns = [one.end_ns + one.half_width_ns for one in bins]
        first, last = bins[0], bins[-1]
        # The curve of a session begins at 0: before such a bin there was none.
        is_first_ever = first.total_uj == (first.energy_uj or 0)
        self._from_ns = 0 if is_first_ever else first.start_ns + first.half_width_ns
        self._until_ns = last.end_ns - last.half_width_ns

    def stay(self, start_ns: int, end_ns: int) -> Stay | None:
        """Where a stretch of time is booked; None: in none of these bins."""
        first = bisect_right(self._ends_ns, start_ns)
        last = bisect_left(self._starts_ns, end_ns) - 1
        if first > last:
            return None
        whole = start_ns >= self._from_ns and end_ns <= self._until_ns
        return Stay(_minute(self._bins[first]), _minute(self._bins[last]), whole)


def _stay(one: KeptRequest, shelves: Mapping[str, _Shelf]) -> Stay | None:
    start_ns = min(part.start_ns for part in one.span.parts)
    end_ns = max(part.end_ns for part in one.span.parts)
    stays = [
        shelves[name].stay(start_ns, end_ns) if name in shelves else None for name in one.domains
    ]
    known = [stay for stay in stays if stay is not None]
    if not known:
        return None
    return Stay(
        min(stay.first for stay in known),
        max(stay.last for stay in known),
        len(known) == len(stays) and all(stay.whole for stay in known),
    )


def _minute(bin_: Bin) -> int:
    assert bin_.booked is not None
    return bin_.booked.minute
