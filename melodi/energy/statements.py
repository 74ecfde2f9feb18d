"""Says what the books hold of requests: a request's energy from its sums in each domain."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from melodi.energy.bins import Interval, Span
from melodi.energy.domain_books import DomainBooks
from melodi.energy.roster import NOT_YET_NS
from melodi.energy.tallies import Tallies
from melodi.energy.tally import Services, Tally
from melodi.energy.total import Footprint, RequestEnergy, totals, unmeasured


@dataclass(slots=True)
class Entry:
    """A request that the books still follow."""

    id: str
    sent_ns: int
    row: int
    domains: tuple[str, ...]
    span: Span | None = None
    """Known once it has ended."""
    end_ns: int = NOT_YET_NS


class Statements:
    """Reads the sums of the domains' books; one thread owns it."""

    def __init__(
        self,
        domains: Mapping[str, DomainBooks],
        tallies: Tallies,
        versions: Sequence[tuple[str, int]],
    ) -> None:
        self._domains = domains
        self._tallies = tallies
        self._versions = versions
        self._footprints: dict[tuple[str, ...], Footprint] = {}

    def forget_footprints(self) -> None:
        """The facts of a domain have changed."""
        self._footprints.clear()

    def of(
        self, entries: Iterable[Entry], *, heard: bool = False
    ) -> Iterator[tuple[str, RequestEnergy]]:
        """What the books say of ended requests; if `heard`, of what sensors have told of so far."""
        groups: dict[tuple[str, ...], list[Entry]] = {}
        for entry in entries:
            groups.setdefault(entry.domains, []).append(entry)
        for domains, some in groups.items():
            if not domains:
                yield from ((one.id, unmeasured("no_meter")) for one in some)
                continue
            books = [self._domains[name] for name in domains]
            heard_ns = [one.heard_ns for one in books] if heard else ()
            services = Services.of([one.span for one in some if one.span], heard_ns=heard_ns)
            energies = self._totals(self._tally(some, books), services, domains)
            yield from zip((one.id for one in some), energies, strict=True)

    def foreseen(self, entry: Entry, now_ns: int) -> RequestEnergy:
        """The energy of a request as far as it has been seen, in bins that are open still too."""
        if not entry.domains:
            return unmeasured("no_meter")
        until_ns = max(entry.sent_ns, now_ns)
        span = entry.span or Span(entry.id, Interval(entry.sent_ns, until_ns))
        books = [self._domains[name] for name in entry.domains]
        tally = self._tally([entry], books)
        for number, one in enumerate(books):
            one.foresee(tally, number, entry.row, now_ns)
        services = Services.of([span], heard_ns=[one.heard_ns for one in books])
        return next(self._totals(tally, services, entry.domains))

    def _tally(self, entries: Sequence[Entry], books: Sequence[DomainBooks]) -> Tally:
        rows = np.array([one.row for one in entries], np.intp)
        return self._tallies.of(rows, [one.place for one in books])

    def _totals(
        self, tally: Tally, services: Services, domains: tuple[str, ...]
    ) -> Iterator[RequestEnergy]:
        if domains not in self._footprints:
            facts = [self._domains[name].facts for name in domains]
            self._footprints[domains] = Footprint.of(facts)
        return totals(
            tally,
            services,
            self._footprints[domains],
            policies=self._versions,
            reasons=self._tallies.reasons,
        )
