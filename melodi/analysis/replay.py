"""Goes through kept bins and requests once more, as if another policy had been set."""

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from melodi.clock import NS_PER_SECOND
from melodi.energy.accounts import MinuteAccounts, MinuteSums
from melodi.energy.bins import Bin
from melodi.energy.ledger import LATEST_NS, Ledger
from melodi.energy.policies import Policy
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy
from melodi.store.kept import Kept, KeptRequest

STEP_NS = 10 * NS_PER_SECOND
"""Of virtual time between two turns of the ledger."""

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
    bins: dict[str, list[Bin]] = defaultdict(list)
    for bin_ in (one for part in parts for one in part.bins):
        bins[bin_.domain].append(bin_)
    told = _Told(parts)
    ledger = Ledger(told.first_facts, policies=policies)
    for now_ns in range(told.start_ns + STEP_NS, told.end_ns + STEP_NS, STEP_NS):
        told.tell(ledger, until_ns=now_ns)
        closing = ledger.advance(now_ns, wall_offset_ns=0)
        sums.add(closing.minutes)
        result.energies |= closing.final
    closing = ledger.advance(told.end_ns + LATEST_NS, wall_offset_ns=0)
    sums.add(closing.minutes)
    result.energies |= closing.final
    shelves = {name: _Shelf(some) for name, some in bins.items()}
    for one in (one for part in parts for one in part.requests):
        if (stay := _stay(one, shelves)) is not None:
            result.stays[one.span.request] = stay


class _Told:
    """What a session's ledger was told, in order of time."""

    def __init__(self, parts: Sequence[Kept]) -> None:
        bins = sorted((one for part in parts for one in part.bins), key=lambda one: one.end_ns)
        self._bins = deque(bins)
        requests = (one for part in parts for one in part.requests)
        self._requests = deque(sorted(requests, key=lambda one: one.sent_ns))
        usages = (one for part in parts for one in part.usages)
        self._usages = deque(sorted(usages, key=lambda one: one.end_ns))
        steps = (one for part in parts for one in part.steps)
        self._steps = deque(sorted(steps, key=lambda one: one.end_ns))
        self._facts = deque(_changes_of_facts(parts))
        self.first_facts = parts[0].facts
        self.start_ns = bins[0].end_ns if bins else 0
        ends_ns = [one.span.service.end_ns for one in self._requests]
        self.end_ns = max([bins[-1].end_ns if bins else 0, *ends_ns])

    def tell(self, ledger: Ledger, *, until_ns: int) -> None:
        """All that was known by `until_ns`, and of requests that ran then how they will end."""
        while self._facts and self._facts[0][0] <= until_ns:
            for facts in self._facts.popleft()[1]:
                ledger.introduce(facts)
        while self._requests and self._requests[0].sent_ns <= until_ns:
            one = self._requests.popleft()
            ledger.begin(one.span.request, one.domains, one.sent_ns)
            ledger.end(one.span.request, one.span)
        while self._usages and self._usages[0].end_ns <= until_ns:
            ledger.use(self._usages.popleft())
        while self._steps and self._steps[0].end_ns <= until_ns:
            ledger.step(self._steps.popleft())
        while self._bins and self._bins[0].end_ns <= until_ns:
            ledger.add(self._bins.popleft())


def _changes_of_facts(
    parts: Sequence[Kept],
) -> Iterator[tuple[int, tuple[DomainFacts, ...]]]:
    """From when on another meter told of a domain, or of one more; at most a part too early."""
    known = parts[0].facts
    for part in parts:
        if part.facts != known and part.bins:
            yield min(one.end_ns for one in part.bins), part.facts
            known = part.facts


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
