"""Keeps the books: bins stay open until everybody in them has ended, then every joule is posted."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from melodi.clock import NS_PER_MINUTE, NS_PER_SECOND
from melodi.energy.accounts import MinuteAccounts
from melodi.energy.bins import Bin, Booked, Interval, Span
from melodi.energy.domain_books import MAX_OPEN_NS, DomainBooks, Turn
from melodi.energy.engine import Engines, EngineSteps
from melodi.energy.policies import Policy
from melodi.energy.roster import Roster
from melodi.energy.rounds import close
from melodi.energy.statements import Entry, Statements
from melodi.energy.tallies import Tallies
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy
from melodi.energy.usage import Usage

MAX_SETTLE_NS = 3 * NS_PER_SECOND
SILENCE_NS = 10 * NS_PER_SECOND
BINS_AT_ONCE, GUESTS_AT_ONCE = 16, 1_000
"""In a round: few enough for others not to wait long, and enough for calls to cost little."""
PREFILL_BY_STEPS = "prefill_by_steps"
"""Nobody saw the first token: the steps of the engine tell when it came."""
LATEST_NS = MAX_OPEN_NS + SILENCE_NS
"""So long after its end nothing keeps a bin or a request open any more."""


@dataclass(slots=True)
class Closing:
    """What one turn of the ledger closed."""

    minutes: list[MinuteAccounts] = field(default_factory=list)
    bins: list[Bin] = field(default_factory=list)
    """What was closed, in each domain's order, with how it was booked."""
    touched: set[str] = field(default_factory=set)
    """Requests that received joules and are not final yet."""
    final: dict[str, RequestEnergy] = field(default_factory=dict)
    more: bool = False
    """There are more bins to close than one turn may."""


class Ledger:
    """The accounts of all domains of one host. Not thread-safe: one thread owns it.

    A bin closes when every request in service during it has ended and the settle time has
    passed, at the latest after ten minutes. A request is final when all its bins are closed.
    `policies` gives each domain its own, in order of preference: they learn.
    """

    def __init__(
        self,
        domains: Iterable[DomainFacts],
        *,
        policies: Callable[[], Sequence[Policy]],
        quiet_ns: int = 10 * NS_PER_SECOND,
        idle_watts: Mapping[str, float] | None = None,
    ) -> None:
        self._known_watts = idle_watts or {}
        self._policies = policies
        self._quiet_ns = quiet_ns
        versions = [(policy.name, policy.version) for policy in policies()]
        self._roster = Roster()
        self._tallies = Tallies(policies=len(versions))
        self._engines = Engines()
        self._unplaced: list[Entry] = []
        self._come: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        self._ended: list[Entry] = []
        self._domains: dict[str, DomainBooks] = {}
        self._entries: dict[str, Entry] = {}
        self._statements = Statements(self._domains, self._tallies, versions)
        self.settle_ns = 0
        for facts in domains:
            self.introduce(facts)

    @property
    def facts(self) -> tuple[DomainFacts, ...]:
        """The domains that it keeps the books of."""
        return tuple(one.facts for one in self._domains.values())

    @property
    def idle_watts(self) -> dict[str, float]:
        """What has been learned of each domain's idle power."""
        learned = {name: one.idle.watts for name, one in self._domains.items()}
        return {name: watts for name, watts in learned.items() if watts is not None}

    def introduce(self, facts: DomainFacts) -> None:
        """Keep books of this domain too, or learn that another meter tells of it from now on."""
        books = self._domains.get(facts.name)
        if books is None:
            self._domains[facts.name] = DomainBooks(
                facts,
                self._roster,
                self._tallies,
                self._engines,
                policies=self._policies,
                idle_watts=self._known_watts.get(facts.name),
                quiet_ns=self._quiet_ns,
            )
        else:
            self._write()
            books.change_meter(facts)
        self._statements.forget_footprints()
        slowest_ns = max(one.facts.refresh_ns for one in self._domains.values())
        self.settle_ns = min(2 * slowest_ns, MAX_SETTLE_NS)

    def begin(self, request: str, domains: Iterable[str], at_ns: int) -> None:
        """A request has been sent; it may be in service on `domains` from now on."""
        here = tuple(name for name in domains if name in self._domains)
        row = self._roster.enter(at_ns, holders=len(here))
        self._come.setdefault(here, []).append((at_ns, row))
        self._entries[request] = Entry(request, at_ns, row, here)

    def end(self, request: str, span: Span | None) -> None:
        """The request is over; `span` is its service, None if it was never served."""
        entry = self._entries[request]
        entry.span = span or Span(request, Interval(entry.sent_ns, entry.sent_ns))
        entry.end_ns = entry.span.service.end_ns
        self._ended.append(entry)
        waits = entry.span.work is not None
        self._roster.tell(entry.row, entry.span, waits=waits)
        if waits:
            self._unplaced.append(entry)

    def add(self, bin_: Bin) -> None:
        """A new bin, in the order of its domain's curve; one booked before is booked so again."""
        self._domains[bin_.domain].add(bin_)

    def use(self, usage: Usage) -> None:
        """Who worked on a domain for a while, in order of time; domains not kept are passed by."""
        if usage.domain in self._domains:
            self._domains[usage.domain].usage.add(usage)

    def step(self, told: EngineSteps) -> None:
        """How many steps a backend's engine made in a while, in order of time."""
        self._engines.add(told)

    def advance(self, now_ns: int, *, wall_offset_ns: int, most: int | None = None) -> Closing:
        """Close what can be closed, at most `most` bins.

        `wall_offset_ns` is wall time minus monotonic time.
        """
        self._write()
        self._place(now_ns)
        closing = Closing()
        accounts: dict[tuple[str, int], MinuteAccounts] = {}
        touched = np.zeros(self._roster.capacity, np.bool_)
        left = sys.maxsize if most is None else most
        book = partial(self._book, closing, accounts, wall_offset_ns)
        while turns := self._take(now_ns, most=left - len(closing.bins)):
            touched[close(turns, self._roster, self._tallies, book=book)] = True
        closing.more = len(closing.bins) == left and any(
            one.next_closable(now_ns, settle_ns=self.settle_ns) for one in self._domains.values()
        )
        closing.minutes = list(accounts.values())
        settled = self._settled(now_ns)
        closing.final = dict(self._statements.of(settled))
        self._let_go(settled)
        rows = set(touched.nonzero()[0].tolist())
        closing.touched = {one.id for one in self._entries.values() if one.row in rows}
        return closing

    def posted(self, requests: Iterable[str]) -> dict[str, RequestEnergy]:
        """The energy of ended requests in closed bins alone: what the books say so far."""
        self._write()
        entries = [self._entries[one] for one in requests]
        return dict(self._statements.of(entries, heard=True))

    def preview(self, request: str, now_ns: int) -> RequestEnergy | None:
        """The request's energy as far as it has been seen; None if the books do not hold it."""
        entry = self._entries.get(request)
        if entry is None:
            return None
        self._write()
        return self._statements.foreseen(entry, now_ns)

    def _write(self) -> None:
        """Bring the columns of requests up to date."""
        self._tallies.open(self._roster.write())
        come, self._come = self._come, {}
        for domains, some in come.items():
            sent_ns, rows = np.array(sorted(some)).T
            for name in domains:
                self._domains[name].welcome(rows, sent_ns)

    def _place(self, now_ns: int) -> None:
        """Put the tokens of those who were not streamed where their engines' steps tell."""
        waiting = []
        for entry in self._unplaced:
            assert entry.span is not None
            if entry.id not in self._entries:
                continue
            if not self._engines.tell_of(entry.span):
                self._roster.placed[entry.row] = True
                continue
            if self._engines.is_due(entry.span, now_ns):
                waiting.append(entry)
                continue
            placed = self._engines.placed(entry.span)
            if placed is not None:
                entry.span = placed
                self._roster.place(entry.row, placed)
                assert placed.work is not None
                is_found = placed.first_token_ns is not None and not placed.work.is_seen
                for name in entry.domains if is_found else ():
                    self._domains[name].explain(np.array([entry.row]), PREFILL_BY_STEPS)
            self._roster.placed[entry.row] = True
        self._unplaced = waiting

    def _take(self, now_ns: int, *, most: int) -> list[Turn]:
        """The oldest bin of each domain that has one to close; more of them while these are few."""
        turns: list[Turn] = []
        books, layer = list(self._domains.values()), 0
        while books and (layer == 0 or _are_few(turns)):
            ready = []
            for one in books:
                bin_ = one.next_closable(now_ns, settle_ns=self.settle_ns)
                if bin_ is None or len(turns) == most or (layer > 0 and not one.may_join(bin_)):
                    continue
                turns.append(one.take(bin_, layer=layer))
                if bin_.energy_uj is not None:
                    ready.append(one)
            books, layer = ready, layer + 1
        return turns

    def _book(
        self,
        closing: Closing,
        accounts: dict[tuple[str, int], MinuteAccounts],
        wall_offset_ns: int,
        bin_: Bin,
        idle_watts: float | None,
    ) -> MinuteAccounts:
        """Say in which minute a bin is booked, and by which idle power; gives the account."""
        minute = (bin_.end_ns + wall_offset_ns) // NS_PER_MINUTE
        booked = bin_.booked or Booked(minute, idle_watts)
        closing.bins.append(replace(bin_, booked=booked))
        key = (bin_.domain, booked.minute)
        if key not in accounts:
            accounts[key] = MinuteAccounts(domain=bin_.domain, minute=booked.minute)
        return accounts[key]

    def _settled(self, now_ns: int) -> list[Entry]:
        """Those who have ended, and for whom no more bins are waited for."""
        until_ns = {one: self._settled_ns(one) for one in {one.domains for one in self._ended}}
        return [
            one
            for one in self._ended
            if one.end_ns <= until_ns[one.domains] or self._is_silent(one, now_ns)
        ]

    def _let_go(self, final: Sequence[Entry]) -> None:
        """What is known of these has been said."""
        for one in final:
            del self._entries[one.id]
        self._ended = [one for one in self._ended if one.id in self._entries]
        self._roster.finish([one.row for one in final])

    def _settled_ns(self, domains: Sequence[str]) -> float:
        """Services on these that ended by then have all their bins closed."""
        return min((self._domains[name].settled_ns for name in domains), default=math.inf)

    def _is_silent(self, entry: Entry, now_ns: int) -> bool:
        """Whether it waits for nothing but sensors that have been silent for too long."""
        if now_ns < entry.end_ns + SILENCE_NS:
            return False
        books = [self._domains[name] for name in entry.domains]
        return all(
            one.settled_ns >= entry.end_ns
            or one.is_silent(entry.end_ns, now_ns=now_ns, patience_ns=SILENCE_NS)
            for one in books
        )


def _are_few(turns: Sequence[Turn]) -> bool:
    guests = sum(len(one.present) for one in turns)
    return len(turns) < BINS_AT_ONCE and guests < GUESTS_AT_ONCE
