"""Which power domains contain which, so that no joule is added twice."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import permutations

from collectors.base import Collector, Conditions, Domain, Kind, Readings

_PARTS = {
    "package": {"core", "uncore"},
    "module": {"grace", "cpu_rail", "sysio_rail"},
}
"""By scope. A superchip's GPU counter covers the module, and so the Grace CPU on it."""


def contains(outer: Domain, inner: Domain) -> bool:
    """Whether the joules of `inner` are, or for all that is known may be, among `outer`'s.

    A platform's may hold anyone's. A sensor's are those that an estimate of its kind guesses at.
    """
    if outer.kind is Kind.PLATFORM or inner.part_of == outer.name:
        return True
    if inner.estimated and not outer.estimated:
        return inner.kind is outer.kind
    if inner.scope not in _PARTS.get(outer.scope, ()):
        return False
    return outer.scope == "module" or _place(outer) == _place(inner)


def left_out(domains: Iterable[Domain]) -> set[str]:
    """The names of summable domains that are not to be added to the others of their set.

    What contains others is kept, unless it is a whole platform: the parts say more.
    """
    usable = [domain for domain in domains if domain.summable]
    parts = [domain for domain in usable if domain.kind is not Kind.PLATFORM] or usable
    inside = {inner.name for outer, inner in permutations(parts, 2) if contains(outer, inner)}
    return inside | {domain.name for domain in usable if domain not in parts}


class NotAdded:
    """An open collector, some of whose domains are not to be added to other collectors'."""

    def __init__(self, collector: Collector, names: Collection[str]) -> None:
        self.of = collector
        self._names = names

    @property
    def name(self) -> str:
        return self.of.name

    @property
    def domains(self) -> tuple[Domain, ...]:
        return tuple(
            replace(domain, summable=domain.summable and domain.name not in self._names)
            for domain in self.of.domains
        )

    def read(self) -> Readings:
        return self.of.read()

    def conditions(self) -> tuple[Conditions, ...]:
        return self.of.conditions()

    def close(self) -> None:
        self.of.close()


def opened(collector: Collector) -> Collector:
    """The open collector itself, without what is said of its domains."""
    return opened(collector.of) if isinstance(collector, NotAdded) else collector


def _place(domain: Domain) -> str:
    """What follows the scope in a name: `0` of `package:0`."""
    return domain.name.partition(":")[2]
