"""Bins and requests in a few words, and all that a ledger says of them."""

import math
from dataclasses import dataclass
from functools import partial

from melodi.energy.accounts import MinuteAccounts
from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, SILENCE_NS, Closing, Ledger
from melodi.energy.policies import policies_for
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy

MS = 1_000_000
SECOND = 1_000 * MS
GPU = "gpu:a"
START_NS = 1_000 * SECOND


def facts(name: str = GPU, **changes: object) -> DomainFacts:
    known = {
        "name": name,
        "kind": "gpu",
        "scope": "gpu",
        "source": "test",
        "origin": "sensor",
        "refresh_ns": 100 * MS,
        "exclusive": True,
    }
    return DomainFacts(**(known | changes))  # type: ignore[arg-type]


def ledger_with(*domains: DomainFacts, idle_watts: dict[str, float] | None = None) -> Ledger:
    return Ledger(
        domains or (facts(),), policies=partial(policies_for, "auto"), idle_watts=idle_watts
    )


def bins_of(
    energies_uj: list[int | None], *, domain: str = GPU, length_ns: int = 100 * MS
) -> list[Bin]:
    """Consecutive bins from START_NS on."""
    result, total = [], 0
    for k, energy_uj in enumerate(energies_uj):
        total += energy_uj or 0
        start_ns = START_NS + k * length_ns
        result.append(
            Bin(
                domain=domain,
                start_ns=start_ns,
                end_ns=start_ns + length_ns,
                energy_uj=energy_uj,
                total_uj=total,
                reason=None if energy_uj is not None else "counter_reset",
            )
        )
    return result


@dataclass
class Books:
    """Everything that a ledger closed, added up."""

    minutes: list[MinuteAccounts]
    final: dict[str, RequestEnergy]

    @classmethod
    def of(cls, closings: list[Closing]) -> "Books":
        minutes = [minute for closing in closings for minute in closing.minutes]
        final = {key: one for closing in closings for key, one in closing.final.items()}
        return cls(minutes, final)

    def sum(self, account: str, domain: str = GPU) -> float:
        return math.fsum(getattr(one, account) for one in self.minutes if one.domain == domain)


def run_all(ledger: Ledger, bins: list[Bin], spans: list[Span], domain: str = GPU) -> Books:
    """Requests begin, bins arrive, requests end, the books close."""
    for span in spans:
        sent_ns = min(part.start_ns for part in span.parts)
        ledger.begin(span.request, [domain], sent_ns)
    for bin_ in bins:
        ledger.add(bin_)
    for span in spans:
        ledger.end(span.request, span)
    end_ns = max([bins[-1].end_ns, *(span.service.end_ns for span in spans)])
    return Books.of([ledger.advance(end_ns + MAX_OPEN_NS + SILENCE_NS, wall_offset_ns=0)])


def span(name: str, start_ms: int, end_ms: int, **more: object) -> Span:
    service = Interval(START_NS + start_ms * MS, START_NS + end_ms * MS)
    return Span(name, service, **more)  # type: ignore[arg-type]
