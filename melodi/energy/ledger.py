"""Keeps the books: bins stay open until everybody in them has ended, then every joule is posted."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from melodi.energy.accounts import MinuteAccounts
from melodi.energy.bins import NS_PER_SECOND, Bin, Booked, Interval, Span
from melodi.energy.domain_books import MAX_OPEN_NS, DomainBooks
from melodi.energy.policies import Policy
from melodi.energy.roster import Roster
from melodi.energy.tally import DomainFacts, Tally
from melodi.energy.total import Footprint, RequestEnergy, total, unmeasured
from melodi.energy.usage import Usage

MAX_SETTLE_NS = 3 * NS_PER_SECOND
SILENCE_NS = 10 * NS_PER_SECOND
NS_PER_MINUTE = 60 * NS_PER_SECOND
LATEST_NS = MAX_OPEN_NS + SILENCE_NS
"""So long after its end nothing keeps a bin or a request open any more."""


@dataclass(slots=True)
class _Entry:
    """A request that the books still follow."""

    id: str
    sent_ns: int
    row: int
    domains: tuple[str, ...]
    span: Span | None = None
    """Known once it has ended."""


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
        self._versions = [(policy.name, policy.version) for policy in policies()]
        self._roster = Roster()
        self._domains: dict[str, DomainBooks] = {}
        self._entries: dict[str, _Entry] = {}
        self._footprints: dict[tuple[str, ...], Footprint] = {}
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
                policies=self._policies,
                idle_watts=self._known_watts.get(facts.name),
                quiet_ns=self._quiet_ns,
            )
        else:
            books.change_meter(facts)
        self._footprints.clear()
        slowest_ns = max(one.facts.refresh_ns for one in self._domains.values())
        self.settle_ns = min(2 * slowest_ns, MAX_SETTLE_NS)

    def begin(self, request: str, domains: Iterable[str], at_ns: int) -> None:
        """A request has been sent; it may be in service on `domains` from now on."""
        here = tuple(name for name in domains if name in self._domains)
        row = self._roster.enter(at_ns, holders=len(here))
        for name in here:
            self._domains[name].welcome(row, at_ns)
        self._entries[request] = _Entry(request, at_ns, row, here)

    def end(self, request: str, span: Span | None) -> None:
        """The request is over; `span` is its service, None if it was never served."""
        entry = self._entries[request]
        entry.span = span or Span(request, Interval(entry.sent_ns, entry.sent_ns))
        self._roster.tell(entry.row, entry.span)

    def add(self, bin_: Bin) -> None:
        """A new bin, in the order of its domain's curve; one booked before is booked so again."""
        self._domains[bin_.domain].add(bin_)

    def use(self, usage: Usage) -> None:
        """Who worked on a domain for a while, in order of time; domains not kept are passed by."""
        if usage.domain in self._domains:
            self._domains[usage.domain].usage.add(usage)

    def advance(
        self,
        now_ns: int,
        *,
        wall_offset_ns: int,
        most: int | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> Closing:
        """Close what can be closed, at most `most` bins.

        `wall_offset_ns` is wall time minus monotonic time; `between` is called after each bin and
        each request that became final.
        """
        closing = Closing()
        accounts: dict[tuple[str, int], MinuteAccounts] = {}
        rows: set[int] = set()
        left = most
        for name, books in self._domains.items():
            while (bin_ := books.next_closable(now_ns, settle_ns=self.settle_ns)) is not None:
                if left == 0:
                    closing.more = True
                    break
                left = None if left is None else left - 1
                booked = bin_.booked or Booked(
                    (bin_.end_ns + wall_offset_ns) // NS_PER_MINUTE, books.idle.watts
                )
                closing.bins.append(replace(bin_, booked=booked))
                account = accounts.setdefault(
                    (name, booked.minute), MinuteAccounts(domain=name, minute=booked.minute)
                )
                rows.update(books.close(bin_, account).tolist())
                between()
        closing.minutes = list(accounts.values())
        closing.touched = {one.id for one in self._entries.values() if one.row in rows}
        self._finish(closing, now_ns, between)
        return closing

    def posted(self, request: str) -> RequestEnergy:
        """The energy of an ended request in closed bins alone: what the books say so far."""
        entry = self._entries[request]
        assert entry.span is not None
        return self._energy(entry.span, self._tallies(entry), provisional=True)

    def preview(self, request: str, now_ns: int) -> RequestEnergy | None:
        """The request's energy as far as it has been seen; None if the books do not hold it."""
        entry = self._entries.get(request)
        if entry is None:
            return None
        span = entry.span or Span(request, Interval(entry.sent_ns, max(entry.sent_ns, now_ns)))
        tallies = {name: self._domains[name].foresee(entry.row, now_ns) for name in entry.domains}
        return self._energy(span, tallies, provisional=True)

    def _finish(self, closing: Closing, now_ns: int, between: Callable[[], None]) -> None:
        settled_ns: dict[tuple[str, ...], float] = {}
        for entry in list(self._entries.values()):
            if entry.span is None:
                continue
            end_ns = entry.span.service.end_ns
            until_ns = settled_ns.get(entry.domains)
            if until_ns is None:
                until_ns = settled_ns[entry.domains] = self._settled_ns(entry.domains)
            if end_ns <= until_ns or self._is_silent(entry, now_ns):
                closing.final[entry.id] = self._energy(entry.span, self._tallies(entry))
                self._roster.finish(entry.row)
                del self._entries[entry.id]
                between()
        closing.touched.difference_update(closing.final)

    def _settled_ns(self, domains: Sequence[str]) -> float:
        """Services on these that ended by then have all their bins closed."""
        return min((self._domains[name].settled_ns for name in domains), default=math.inf)

    def _is_silent(self, entry: _Entry, now_ns: int) -> bool:
        """Whether it waits for nothing but sensors that have been silent for too long."""
        assert entry.span is not None
        end_ns = entry.span.service.end_ns
        if now_ns < end_ns + SILENCE_NS:
            return False
        books = [self._domains[name] for name in entry.domains]
        return all(
            one.settled_ns >= end_ns or one.is_silent(end_ns, now_ns=now_ns, patience_ns=SILENCE_NS)
            for one in books
        )

    def _tallies(self, entry: _Entry) -> dict[str, Tally]:
        return {name: self._domains[name].tallies.of(entry.row) for name in entry.domains}

    def _energy(
        self,
        span: Span,
        tallies: Mapping[str, Tally],
        *,
        provisional: bool = False,
    ) -> RequestEnergy:
        if not tallies:
            return unmeasured("no_meter")
        served = span.service.length_ns > 0 or span.load is not None
        if not served and not any(tally.covered_ns for tally in tallies.values()):
            return unmeasured("not_served")
        first_seen = span.first_token_ns is not None
        return total(
            {
                name: tally.energy(
                    self._heard(name, span.service) if provisional else span.service,
                    load=span.load,
                )
                for name, tally in tallies.items()
            },
            self._footprint(tuple(tallies)),
            prefill_joules=sum(one.prefill for one in tallies.values()) if first_seen else None,
            policy=self._policy_of(tallies.values()),
            concurrency_mean=_concurrency(tallies.values()),
        )

    def _footprint(self, domains: tuple[str, ...]) -> Footprint:
        if domains not in self._footprints:
            facts = [self._domains[name].facts for name in domains]
            self._footprints[domains] = Footprint.of(facts)
        return self._footprints[domains]

    def _heard(self, name: str, service: Interval) -> Interval:
        """The part of a service that the domain's sensor has told of so far."""
        heard_ns = self._domains[name].heard_ns or service.start_ns
        return Interval(service.start_ns, max(service.start_ns, min(service.end_ns, heard_ns)))

    def _policy_of(self, tallies: Iterable[Tally]) -> tuple[str, int]:
        """The policy that divided most of the active energy; else the preferred one."""
        joules = [sum(one) for one in zip(*(tally.divided for tally in tallies), strict=True)]
        return self._versions[joules.index(max(joules))]


def _concurrency(tallies: Iterable[Tally]) -> float | None:
    """Mean number of requests in service while this one was, where its bins were measured best."""
    best = max(tallies, key=lambda one: one.covered_ns)
    return best.company_ns / best.covered_ns if best.covered_ns else None
