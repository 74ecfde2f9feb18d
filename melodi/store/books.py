"""The ledger as it is asked for, and its audit against the records."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from melodi.clock import SECONDS_PER_MINUTE, begin_of_minute
from melodi.energy.accounts import AMOUNTS, MinuteAccounts
from melodi.store.schema import ledger_minutes, requests

LedgerBy = Literal["domain", "minute", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """The accounts of one domain: over all that was asked for, of one minute, or of one model."""

    host: str
    domain: str
    minute: datetime | None
    """When the minute began; None where minutes were added up."""
    model: str | None = None
    """Whose joules these are; None: of no model, or not told by model."""
    split: str | None = None
    """How the idle joules of several models that were loaded at once were split: `vram`, by the
    memory of the device that they took; `equal`, where that is not known. An estimate."""
    measured_joules: float
    active_joules: float
    idle_share_joules: float
    load_joules: float
    idle_joules: float
    foreign_joules: float
    unattributed_joules: float
    tail_joules: float
    unmeasured_seconds: float
    residual_joules: float
    """Measured joules that no account holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One domain's books beside the records they were booked for; each pair should agree.

    `served` is active plus idle share: a record whose idle is unknown holds only their sum.
    """

    domain: str
    served_records_joules: float
    served_ledger_joules: float
    load_records_joules: float
    load_ledger_joules: float

    @property
    def difference_joules(self) -> float:
        """Joules on which the two disagree, whichever of them has more."""
        return abs(self.served_ledger_joules - self.served_records_joules) + abs(
            self.load_ledger_joules - self.load_records_joules
        )


def read_ledger(
    connection: sa.Connection,
    *,
    since: datetime | None,
    until: datetime | None,
    by: Literal["domain", "minute"],
) -> tuple[LedgerLine, ...]:
    """The lines of the minutes that begin at or after `since` and before `until`."""
    keys = [ledger_minutes.c.host, ledger_minutes.c.domain]
    if by == "minute":
        keys.append(ledger_minutes.c.minute)
    statement = (
        sa.select(*keys, *(sa.func.sum(ledger_minutes.c[name]).label(name) for name in AMOUNTS))
        .where(*within(ledger_minutes.c.minute, since=since, until=until))
        .group_by(*keys)
        .order_by(*reversed(keys))
    )
    return tuple(_to_line(row) for row in connection.execute(statement).mappings())


def within(
    minute: sa.ColumnElement[int], *, since: datetime | None, until: datetime | None
) -> Iterator[sa.ColumnElement[bool]]:
    """That a minute begins at or after `since` and before `until`."""
    if since is not None:
        yield minute >= first_minute(since)
    if until is not None:
        yield minute < first_minute(until)


def read_minutes(
    connection: sa.Connection, host: str, *, first: int, last: int
) -> dict[tuple[str, int], MinuteAccounts]:
    """The host's accounts by domain and minute, from minute `first` to `last`, both included."""
    book = ledger_minutes.c
    statement = sa.select(ledger_minutes).where(book.host == host, book.minute.between(first, last))
    found = (dict(row) for row in connection.execute(statement).mappings())
    return {
        (row["domain"], row["minute"]): MinuteAccounts(
            **{name: value for name, value in row.items() if name != "host"}
        )
        for row in found
    }


def read_audit(connection: sa.Connection, domain: str, *, host: str) -> Audit:
    """Sums over all final records of `host`, and over all its minutes, in one domain."""
    book, record = ledger_minutes.c, requests.c
    in_ledger = connection.execute(
        sa.select(
            _total(book.active_joules + book.idle_share_joules).label("served"),
            _total(book.load_joules).label("load"),
        ).where(book.host == host, book.domain == domain)
    ).one()
    in_records = connection.execute(
        sa.select(
            _total(record.domains[domain, "joules"].as_float()).label("served"),
            _total(record.domains[domain, "load_joules"].as_float()).label("load"),
        ).where(record.host == host, record.provisional.is_(False))
    ).one()
    return Audit(
        domain=domain,
        served_records_joules=in_records.served,
        served_ledger_joules=in_ledger.served,
        load_records_joules=in_records.load,
        load_ledger_joules=in_ledger.load,
    )


def _total(column: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    return sa.func.coalesce(sa.func.sum(column), 0.0)


def first_minute(moment: datetime) -> int:
    """The first minute that begins at or after `moment`."""
    return -int(-moment.timestamp() // SECONDS_PER_MINUTE)


def _to_line(row: sa.RowMapping) -> LedgerLine:
    amounts = {name: row[name] for name in AMOUNTS}
    minute = row.get("minute")
    return LedgerLine(
        host=row["host"],
        domain=row["domain"],
        minute=None if minute is None else begin_of_minute(minute),
        residual_joules=MinuteAccounts(domain=row["domain"], minute=0, **amounts).residual_joules,
        **amounts,
    )
