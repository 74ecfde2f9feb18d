"""Keeps the books: bins stay open until everybody in them has ended, then every joule is posted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from melodi.energy.accounts import MinuteAccounts
from melodi.energy.attribution import Setting, Settlement, settle
from melodi.energy.bins import NS_PER_SECOND, UJ_PER_JOULE, Bin, Interval, Span
from melodi.energy.idle import IdleLearner
from melodi.energy.pending import OpenDomain, PendingRequest
from melodi.energy.policies import Policy
from melodi.energy.tally import DomainFacts, Tally
from melodi.energy.total import RequestEnergy, total, unmeasured

MAX_OPEN_NS = 600 * NS_PER_SECOND
MAX_SETTLE_NS = 3 * NS_PER_SECOND
SILENCE_NS = 10 * NS_PER_SECOND
LEARNING_NS = 10 * NS_PER_SECOND
TAIL_NS = 5 * NS_PER_SECOND
NS_PER_MINUTE = 60 * NS_PER_SECOND


@dataclass(slots=True)
class Closing:
    """What one turn of the ledger closed."""

    minutes: list[MinuteAccounts] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    """Requests that received joules and are not final yet."""
    final: dict[str, RequestEnergy] = field(default_factory=dict)


class Ledger:
    """The accounts of all domains of one host. Not thread-safe: one thread owns it.

    A bin closes when every request in service during it has ended and the settle time has
    passed, at the latest after ten minutes. A request is final when all its bins are closed.
    """

    def __init__(
        self,
        domains: Iterable[DomainFacts],
        *,
        policy: Policy,
        quiet_ns: int = 10 * NS_PER_SECOND,
        idle_watts: dict[str, float] | None = None,
    ) -> None:
        known = idle_watts or {}
        self.policy = policy
        self._quiet_ns = quiet_ns
        self._domains = {
            facts.name: OpenDomain(facts, IdleLearner(watts=known.get(facts.name)))
            for facts in domains
        }
        self._requests: dict[str, PendingRequest] = {}
        slowest_ns = max((one.facts.refresh_ns for one in self._domains.values()), default=0)
        self.settle_ns = min(2 * slowest_ns, MAX_SETTLE_NS)

    @property
    def idle_watts(self) -> dict[str, float]:
        """What has been learned of each domain's idle power."""
        learned = {name: one.idle.watts for name, one in self._domains.items()}
        return {name: watts for name, watts in learned.items() if watts is not None}

    def begin(self, request: str, domains: Iterable[str], at_ns: int) -> None:
        """A request has been sent; it may be in service on `domains` from now on."""
        names = tuple(name for name in domains if name in self._domains)
        tallies = {name: Tally(self._domains[name].facts) for name in names}
        self._requests[request] = PendingRequest(request, names, at_ns, tallies)

    def end(self, request: str, span: Span | None) -> None:
        """The request is over; `span` is its service, None if it was never served."""
        entry = self._requests[request]
        entry.span = span or Span(request, Interval(entry.sent_ns, entry.sent_ns))
        if span is None:
            entry.domains = ()
            return
        entry.concurrency_mean = self._concurrency(entry, span)

    def add(self, bin_: Bin) -> None:
        """A new bin, in the order of its domain's curve."""
        self._domains[bin_.domain].open.append(bin_)

    def advance(self, now_ns: int, *, wall_offset_ns: int) -> Closing:
        """Close what can be closed; `wall_offset_ns` is wall time minus monotonic time."""
        closing = Closing()
        accounts: dict[tuple[str, int], MinuteAccounts] = {}

        def account(domain: str, at_ns: int) -> MinuteAccounts:
            minute = (at_ns + wall_offset_ns) // NS_PER_MINUTE
            key = (domain, minute)
            return accounts.setdefault(key, MinuteAccounts(domain=domain, minute=minute))

        for domain in self._domains.values():
            while domain.open and self._may_close(domain, domain.open[0], now_ns):
                bin_ = domain.open.popleft()
                self._close(domain, bin_, account(bin_.domain, bin_.end_ns), closing, now_ns)
        closing.minutes = list(accounts.values())
        self._finish(closing, now_ns)
        return closing

    def posted(self, request: str, now_ns: int) -> RequestEnergy:
        """The energy of an ended request in closed bins alone: what the books say so far."""
        entry = self._requests[request]
        return self._energy(entry, entry.seen_until(now_ns), entry.tallies, provisional=True)

    def preview(self, request: str, now_ns: int) -> RequestEnergy | None:
        """The request's energy as far as it has been seen; None if the books do not hold it."""
        entry = self._requests.get(request)
        if entry is None:
            return None
        span = entry.seen_until(now_ns)
        tallies = {
            name: replace(tally, reasons=set(tally.reasons))
            for name, tally in entry.tallies.items()
        }
        for name in entry.domains:
            domain = self._domains[name]
            for bin_ in domain.open:
                if _touches(bin_, span):
                    self._post(
                        domain, bin_, self._spans(domain, bin_, now_ns), {request: tallies[name]}
                    )
        return self._energy(entry, span, tallies, provisional=True)

    def _may_close(self, domain: OpenDomain, bin_: Bin, now_ns: int) -> bool:
        age_ns = now_ns - bin_.end_ns
        if age_ns < self.settle_ns:
            return False
        name = domain.facts.name
        running = any(
            entry.span is None
            and name in entry.domains
            and entry.sent_ns < bin_.end_ns + bin_.half_width_ns
            for entry in self._requests.values()
        )
        if running:
            return age_ns >= MAX_OPEN_NS
        return age_ns >= LEARNING_NS or not self._could_learn(domain, bin_, now_ns)

    def _could_learn(self, domain: OpenDomain, bin_: Bin, now_ns: int) -> bool:
        """Whether to wait a little, so that the first idle seconds of all are known as idle."""
        if domain.idle.watts is not None:
            return False
        name = domain.facts.name
        if any(name in entry.domains for entry in self._requests.values()):
            return False
        since_ns = domain.idle_since(bin_, ())
        if since_ns is not None and since_ns < self._quiet_ns:
            return False
        domain.look_ahead(now_ns - self.settle_ns)
        return domain.idle.watts is None

    def _close(
        self, domain: OpenDomain, bin_: Bin, account: MinuteAccounts, closing: Closing, now_ns: int
    ) -> None:
        start_uj = bin_.total_uj - (bin_.energy_uj or 0)
        measured_from = start_uj if domain.closed_uj is None else domain.closed_uj
        account.measured_joules += (bin_.total_uj - measured_from) / UJ_PER_JOULE
        domain.closed_ns, domain.closed_uj = bin_.end_ns, bin_.total_uj
        domain.half_width_ns = bin_.half_width_ns
        name = domain.facts.name
        spans = self._spans(domain, bin_, now_ns)
        tallies = {span.request: self._requests[span.request].tallies[name] for span in spans}
        settlement = self._post(domain, bin_, spans, tallies)
        since_ns = domain.idle_since(bin_, spans)
        if settlement is None:
            account.unmeasured_seconds += bin_.length_ns / NS_PER_SECOND
        else:
            _enter(account, settlement)
            if since_ns is not None and since_ns < TAIL_NS:
                account.tail_joules += settlement.unattributed
        closing.touched.update(tallies)
        domain.idle.feed(bin_, quiet=since_ns is None or since_ns >= self._quiet_ns)

    def _spans(self, domain: OpenDomain, bin_: Bin, now_ns: int) -> list[Span]:
        """Everybody who may have been in service during the bin."""
        name = domain.facts.name
        entries = (one for one in self._requests.values() if name in one.domains)
        return [span for one in entries if _touches(bin_, span := one.seen_until(now_ns))]

    def _post(
        self, domain: OpenDomain, bin_: Bin, spans: Sequence[Span], tallies: dict[str, Tally]
    ) -> Settlement | None:
        """Divide the bin; of the shares, those of `tallies` are kept. None: it was not measured."""
        for span in spans:
            if span.request in tallies:
                tallies[span.request].cover(bin_, span.service)
        if bin_.energy_uj is None:
            return None
        setting = Setting(
            idle_watts=domain.idle.watts,
            our_share=1.0 if domain.facts.exclusive else None,
            max_watts=domain.facts.max_watts,
        )
        settlement = settle(bin_, spans, setting, self.policy)
        for share in settlement.shares:
            if share.request in tallies:
                tallies[share.request].add(bin_, share, settlement, setting)
        return settlement

    def _finish(self, closing: Closing, now_ns: int) -> None:
        done = [entry for entry in self._requests.values() if self._is_final(entry, now_ns)]
        for entry in done:
            assert entry.span is not None
            closing.final[entry.id] = self._energy(entry, entry.span, entry.tallies)
            del self._requests[entry.id]
        closing.touched.difference_update(closing.final)

    def _is_final(self, entry: PendingRequest, now_ns: int) -> bool:
        """All its bins are closed, or its sensor has been silent for too long to wait for them."""
        if entry.span is None:
            return False
        for name in entry.domains:
            domain = self._domains[name]
            end_ns = entry.span.service.end_ns + domain.half_width_ns
            if domain.closed_ns is not None and domain.closed_ns >= end_ns:
                continue
            heard_ns = domain.heard_ns
            if heard_ns is not None and heard_ns >= end_ns:
                return False
            if now_ns < end_ns + SILENCE_NS or domain.open:
                return False
        return True

    def _energy(
        self,
        entry: PendingRequest,
        span: Span,
        tallies: dict[str, Tally],
        *,
        provisional: bool = False,
    ) -> RequestEnergy:
        if not entry.domains:
            return unmeasured("not_served" if entry.tallies else "no_meter")
        seen = {name: tallies[name] for name in entry.domains}
        first_seen = span.first_token_ns is not None
        return total(
            {
                name: tally.energy(self._heard(name, span.service) if provisional else span.service)
                for name, tally in seen.items()
            },
            {name: tally.facts for name, tally in seen.items()},
            prefill_joules=sum(one.prefill for one in seen.values()) if first_seen else None,
            policy=(self.policy.name, self.policy.version),
            concurrency_mean=entry.concurrency_mean,
        )

    def _heard(self, name: str, service: Interval) -> Interval:
        """The part of the service that the domain's sensor has told of so far."""
        heard_ns = self._domains[name].heard_ns or service.start_ns
        return Interval(service.start_ns, max(service.start_ns, min(service.end_ns, heard_ns)))

    def _concurrency(self, entry: PendingRequest, span: Span) -> float | None:
        """Mean number of requests in service on the same domains while this one was."""
        length_ns = span.service.length_ns
        if length_ns <= 0:
            return None
        shared = (
            other.seen_until(span.service.end_ns).service.overlap_ns(
                span.service.start_ns, span.service.end_ns
            )
            for other in self._requests.values()
            if not set(other.domains).isdisjoint(entry.domains)
        )
        return sum(shared) / length_ns


def _touches(bin_: Bin, span: Span) -> bool:
    """Whether the span, or the load it waited for, may overlap the bin."""
    return any(
        part.widened(bin_.half_width_ns).overlap_ns(bin_.start_ns, bin_.end_ns) > 0
        for part in span.parts
    )


def _enter(account: MinuteAccounts, settlement: Settlement) -> None:
    for share in settlement.shares:
        account.active_joules += share.active
        account.idle_share_joules += share.idle_share
        account.load_joules += share.load
    account.idle_joules += settlement.idle
    account.foreign_joules += settlement.foreign
    account.unattributed_joules += settlement.unattributed
