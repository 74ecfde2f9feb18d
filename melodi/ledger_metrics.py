"""What MELODI tells Prometheus about its books."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from collectors.base import Domain
from melodi.energy.accounts import MinuteAccounts

_ACCOUNTS = ("active", "idle_share", "load", "idle", "foreign", "unattributed")


class LedgerMetrics:
    """Adds up what the books gain, in one thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._domains: dict[str, Domain] = {}
        self._measured_joules = 0.0
        self._residual_joules = 0.0
        self._energy = Counter(
            "melodi_energy_joules",
            "Joules measured, of closed bins",
            ["domain", "kind"],
            registry=registry,
        )
        self._attributed = Counter(
            "melodi_attributed_joules",
            "Where the joules went, over the domains that may be added up",
            ["account"],
            registry=registry,
        )
        self._tail = Counter(
            "melodi_tail_joules",
            "The part of unattributed joules within 5 s after the last request",
            registry=registry,
        )
        self._residual_ratio = Gauge(
            "melodi_ledger_residual_ratio",
            "Joules that no account holds, to joules measured, since the start",
            registry=registry,
        )
        self._residual_ratio.set(float("nan"))

    def know_domains(self, domains: Iterable[Domain]) -> None:
        """Tell what the domains are whose minutes will come."""
        self._domains |= {domain.name: domain for domain in domains}

    def add(self, minutes: Iterable[MinuteAccounts]) -> None:
        """Add what the books gained; KeyError for a domain that is not known."""
        for minute in minutes:
            domain = self._domains[minute.domain]
            self._energy.labels(domain.name, domain.kind).inc(minute.measured_joules)
            # One domain inside another would be counted twice.
            if domain.summable:
                self._attribute(minute)

    def _attribute(self, minute: MinuteAccounts) -> None:
        for account in _ACCOUNTS:
            joules = getattr(minute, f"{account}_joules")
            # A counter cannot fall: what rounding leaves below zero is left out.
            self._attributed.labels(account).inc(max(joules, 0.0))
        self._tail.inc(max(minute.tail_joules, 0.0))
        self._measured_joules += minute.measured_joules
        self._residual_joules += minute.residual_joules
        if self._measured_joules:
            self._residual_ratio.set(self._residual_joules / self._measured_joules)
