"""The books of one power domain: bins that are open, requests that may be in them."""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from melodi.energy.accounts import MinuteAccounts
from melodi.energy.attribution import Setting, Settlement, Share, settle, split
from melodi.energy.bins import NS_PER_SECOND, UJ_PER_JOULE, Bin, Interval, Span
from melodi.energy.idle import IdleLearner
from melodi.energy.policies import Policy
from melodi.energy.tally import DomainFacts, Tally

LEARNING_NS = 10 * NS_PER_SECOND
MAX_OPEN_NS = 600 * NS_PER_SECOND
TAIL_NS = 5 * NS_PER_SECOND


@dataclass(slots=True, eq=False)
class Guest:
    """One request in the books of one domain."""

    request: str
    sent_ns: int
    tally: Tally
    span: Span | None = None
    """Known once it has ended."""
    gone: bool = False
    """Its record was given out without waiting any longer: its share is nobody's."""

    def seen_until(self, now_ns: int) -> Span:
        """Its service as far as it is known at `now_ns`."""
        return self.span or Span(self.request, Interval(self.sent_ns, max(self.sent_ns, now_ns)))


class DomainBooks:
    """Closes the bins of one domain in order, each when nothing in it can change any more."""

    def __init__(
        self,
        facts: DomainFacts,
        *,
        policies: Sequence[Policy],
        idle_watts: float | None,
        quiet_ns: int,
    ) -> None:
        self.facts = facts
        self.idle = IdleLearner(watts=idle_watts)
        self._policies = policies
        self._quiet_ns = quiet_ns
        self._open: deque[Bin] = deque()
        self._coming: deque[Guest] = deque()
        self._present: list[Guest] = []
        self._closed_ns: int | None = None
        self._closed_uj: int | None = None
        self._half_width_ns = 0
        self._busy_ns: int | None = None
        self._started_ns: int | None = None

    @property
    def heard_ns(self) -> int | None:
        """Until when its sensor has told its energy."""
        return self._open[-1].end_ns if self._open else self._closed_ns

    def change_meter(self, facts: DomainFacts) -> None:
        """Another meter tells of the domain; what one calls idle says nothing of the other."""
        if facts.source != self.facts.source:
            self.idle = IdleLearner()
        self.facts = facts

    def add(self, bin_: Bin) -> None:
        """A new bin, in the order of the domain's curve."""
        if self._started_ns is None:
            self._started_ns = bin_.start_ns
        self._open.append(bin_)

    def welcome(self, guest: Guest) -> None:
        """A request has been sent that may run here."""
        later: list[Guest] = []
        while self._coming and self._coming[-1].sent_ns > guest.sent_ns:
            later.append(self._coming.pop())
        self._coming.append(guest)
        self._coming.extend(reversed(later))

    def is_settled(self, end_ns: int) -> bool:
        """Whether all bins of a service that ended at `end_ns` are closed."""
        return self._closed_ns is not None and self._closed_ns >= end_ns + self._half_width_ns

    def is_silent(self, end_ns: int, *, now_ns: int, patience_ns: int) -> bool:
        """Whether no bin of that service will come any more: the sensor has said nothing."""
        heard_ns = self.heard_ns
        told = heard_ns is not None and heard_ns >= end_ns + self._half_width_ns
        return not told and not self._open and now_ns >= end_ns + patience_ns

    def next_closable(self, now_ns: int, *, settle_ns: int) -> Bin | None:
        """The oldest bin, if it may be closed now."""
        if not self._open:
            return None
        bin_ = self._open[0]
        age_ns = now_ns - bin_.end_ns
        if age_ns < settle_ns:
            return None
        if age_ns >= MAX_OPEN_NS:
            return bin_
        self._seat(bin_)
        if any(guest.span is None for guest in self._present):
            return None
        if age_ns < LEARNING_NS and self._could_learn(bin_, now_ns - settle_ns):
            return None
        return bin_

    def close(self, bin_: Bin, account: MinuteAccounts, now_ns: int) -> list[Guest]:
        """Post the oldest bin; gives the requests that were in it."""
        self._open.popleft()
        self._seat(bin_)
        start_uj = bin_.total_uj - (bin_.energy_uj or 0)
        measured_uj = bin_.total_uj - (start_uj if self._closed_uj is None else self._closed_uj)
        account.measured_joules += measured_uj / UJ_PER_JOULE
        self._closed_ns, self._closed_uj = bin_.end_ns, bin_.total_uj
        self._half_width_ns = bin_.half_width_ns
        guests = [one for one in self._present if _touches(bin_, one.seen_until(now_ns))]
        spans = [one.seen_until(now_ns) for one in guests]
        settlement = self._post(bin_, guests, spans)
        idle_ns = self._idle_since(bin_, spans)
        if settlement is None:
            account.unmeasured_seconds += bin_.length_ns / NS_PER_SECOND
        else:
            _enter(account, settlement, tail=idle_ns is not None and idle_ns < TAIL_NS)
        since_ns = idle_ns if idle_ns is not None else bin_.start_ns - (self._started_ns or 0)
        self.idle.feed(bin_, quiet=since_ns >= self._quiet_ns)
        self._dismiss(bin_)
        return guests

    def foresee(self, guest: Guest, now_ns: int) -> Tally:
        """What a request has and would get from bins that are open still.

        A quick reckoning for a preview: an equal share among those sent and not ended.
        """
        tally = replace(guest.tally, reasons=set(guest.tally.reasons))
        span = guest.seen_until(now_ns)
        everybody = [one.seen_until(now_ns).service for one in (*self._present, *self._coming)]
        starts = sorted(one.start_ns for one in everybody)
        ends = sorted(one.end_ns for one in everybody)
        for bin_ in self._open:
            if not _touches(bin_, span):
                continue
            setting = self._setting(bin_)
            tally.cover(bin_, span)
            if bin_.joules is None:
                continue
            middle_ns = (bin_.start_ns + bin_.end_ns) // 2
            running = bisect_left(starts, middle_ns) - bisect_left(ends, middle_ns)
            share = _equal_share(bin_, span, setting, among=max(1, running))
            tally.add(bin_, share, setting, divided=setting.idle_watts is not None)
        return tally

    def _setting(self, bin_: Bin) -> Setting:
        return Setting(
            idle_watts=bin_.booked.idle_watts if bin_.booked else self.idle.watts,
            our_share=1.0 if self.facts.exclusive else None,
            max_watts=self.facts.max_watts,
        )

    def _seat(self, bin_: Bin) -> None:
        """Everybody who was sent before the bin's end may be in it."""
        until_ns = bin_.end_ns + bin_.half_width_ns
        while self._coming and self._coming[0].sent_ns < until_ns:
            self._present.append(self._coming.popleft())

    def _dismiss(self, bin_: Bin) -> None:
        """Nobody whose service ended well before the bin's end can be in a later one."""
        past_ns = bin_.end_ns - bin_.half_width_ns
        self._present = [
            one for one in self._present if one.span is None or one.span.service.end_ns >= past_ns
        ]

    def _could_learn(self, bin_: Bin, until_ns: int) -> bool:
        """Whether to wait a little, so that the first idle seconds of all are known as idle."""
        if self.idle.watts is not None or self._present or self._coming:
            return False
        idle_ns = self._idle_since(bin_, ())
        if idle_ns is not None and idle_ns < self._quiet_ns:
            return False
        ahead = IdleLearner()
        for one in self._open:
            if one.end_ns <= until_ns:
                ahead.feed(one, quiet=True)
        self.idle.watts = ahead.watts
        return ahead.watts is None

    def _post(self, bin_: Bin, guests: Sequence[Guest], spans: Sequence[Span]) -> Settlement | None:
        """Divide the bin among the guests; None: it was not measured."""
        for guest, span in zip(guests, spans, strict=True):
            guest.tally.cover(bin_, span)
            if guest.span is None:
                guest.tally.reasons.add("forced_close")
        if bin_.energy_uj is None:
            return None
        setting = self._setting(bin_)
        settlement = settle(bin_, spans, setting, self._policies)
        present = sum(one.service.overlap_ns(bin_.start_ns, bin_.end_ns) for one in spans)
        by_name = {guest.request: guest for guest in guests}
        for share in settlement.shares:
            guest = by_name[share.request]
            if guest.gone:
                settlement.unattributed += share.active + share.idle_share + share.load
                share.active = share.idle_share = share.load = 0.0
            else:
                guest.tally.add(bin_, share, setting, divided=settlement.divided)
        for guest, span in zip(guests, spans, strict=True):
            own_ns = span.service.overlap_ns(bin_.start_ns, bin_.end_ns)
            guest.tally.company_ns += own_ns / bin_.length_ns * present
        return settlement

    def _idle_since(self, bin_: Bin, spans: Sequence[Span]) -> int | None:
        """How long before the bin the last service ended, in ns; None: there was none yet."""
        ends_ns = [min(part.end_ns, bin_.end_ns) for span in spans for part in span.parts]
        self._busy_ns = max((*ends_ns, self._busy_ns or 0)) or None
        return None if self._busy_ns is None else max(0, bin_.start_ns - self._busy_ns)


def _touches(bin_: Bin, span: Span) -> bool:
    """Whether the span, or the load it waited for, may overlap the bin."""
    from_ns, until_ns = bin_.start_ns - bin_.half_width_ns, bin_.end_ns + bin_.half_width_ns
    service, load = span.service, span.load
    if service.start_ns < until_ns and service.end_ns > from_ns:
        return True
    return load is not None and load.start_ns < until_ns and load.end_ns > from_ns


def _equal_share(bin_: Bin, span: Span, setting: Setting, *, among: int) -> Share:
    part = span.service.overlap_ns(bin_.start_ns, bin_.end_ns) / bin_.length_ns
    idle, active, _ = split(bin_, setting)
    own_active, own_idle = part * active / among, part * idle / among
    return Share(
        request=span.request,
        active=own_active,
        idle_share=own_idle,
        low=own_idle if among > 1 else own_active + own_idle,
        high=active + part * idle,
        exclusive_high=active,
    )


def _enter(account: MinuteAccounts, settlement: Settlement, *, tail: bool) -> None:
    for share in settlement.shares:
        account.active_joules += share.active
        account.idle_share_joules += share.idle_share
        account.load_joules += share.load
    account.idle_joules += settlement.idle
    account.foreign_joules += settlement.foreign
    account.unattributed_joules += settlement.unattributed
    if tail:
        account.tail_joules += settlement.unattributed
