"""The store of records and accounts, in the domain's own words."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from typing import TypeVar

import sqlalchemy as sa

from melodi.energy.accounts import MinuteAccounts
from melodi.energy.record import EnergyRecord, Quality
from melodi.errors import StoreError
from melodi.store import dialect
from melodi.store.books import Audit, LedgerBy, LedgerLine, read_audit, read_ledger
from melodi.store.database import reading
from melodi.store.hosts import Counts, HostStore, lock_host
from melodi.store.kept import Kept, forget_kept, to_kept_row
from melodi.store.loaded import LoadedMinute, keep_loaded, read_model_ledger
from melodi.store.queries import (
    Page,
    RequestFilter,
    conditions,
    encode_cursor,
    of_ids,
    select_page,
)
from melodi.store.rollups import count_records
from melodi.store.rows import put_records, to_record
from melodi.store.schema import hosts, kept_minutes, ledger_minutes, requests

MAX_PAGE = 1000
_ROWS_AT_ONCE = 10_000
_ROWS_AT_A_TIME = 50
"""In a statement: its parameters are made without letting go of the interpreter, which holds up
meters and answers; fewer would cost more."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Mark:
    """Which batch of which writer it is; of one writer later batches have larger numbers."""

    writer: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one host's books gained at once: records, and what to add to its minutes."""

    host: str
    records: tuple[EnergyRecord, ...] = ()
    minutes: tuple[MinuteAccounts, ...] = ()
    kept: tuple[Kept, ...] = ()
    """By what these and earlier minutes can be divided anew."""
    mark: Mark | None = field(default=None, compare=False)
    """Lets a batch be tried again whose commit may have gone through; None: never tried again."""

    def __post_init__(self) -> None:
        strangers = {record.host for record in self.records} - {self.host}
        if strangers:
            raise ValueError(f"a batch of {self.host!r} holds records of {strangers}; split it")


class RecordStore:
    """Records and accounts in one database; safe to use from several threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self.hosts = HostStore(engine)
        self._reading = engine
        self._writing = dialect.writing(engine)
        self._add_minutes = dialect.insert_or_add(ledger_minutes, key=["host", "domain", "minute"])
        self._keep = dialect.insert_or_replace(kept_minutes, key=["host", "session", "number"])

    def apply(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Write all of `batches` or nothing; gives the seq of each of their records that is final.

        A final record replaces a provisional one or an older revision; a provisional one never
        replaces a final one. A record gets its seq here, as it becomes final, and keeps it: the
        host's row is locked from before it is counted until the commit, so no two records get
        the same. A marked batch that was written before is left out.
        """
        kept = [to_kept_row(batch.host, one) for batch in batches for one in batch.kept]
        with self._writing.begin() as connection:
            seqs = self._apply(connection, batches)
            if kept:
                connection.execute(self._keep, kept)
        return seqs

    def revise(self, batch: Batch) -> None:
        """Write new revisions of records with what they change in the minutes, or nothing.

        Raises StoreError where one of them is not the revision after the stored one: somebody
        else was faster, and what the minutes are to gain is no longer right.
        """
        with self._writing.begin() as connection:
            lock_host(connection, batch.host)
            stored = _stored(connection, [record.id for record in batch.records])
            before = {id_: row.revision for id_, row in stored.items()}
            if any(before.get(one.id) != one.revision - 1 for one in batch.records):
                raise StoreError("the records were changed meanwhile; do it again")
            self._apply(connection, [batch])

    def _apply(self, connection: sa.Connection, batches: Sequence[Batch]) -> dict[str, int]:
        # In one order for all, so that no two writers wait for each other.
        books = {name: lock_host(connection, name) for name in sorted(_hosts_of(batches))}
        fresh = [batch for batch in batches if not _written(batch, books[batch.host])]
        stored = _stored(connection, [one.id for batch in batches for one in batch.records])
        seqs = {id_: row.seq for id_, row in stored.items() if row.seq is not None}
        offered = _latest(record for batch in fresh for record in batch.records)
        accepted = [r for r in offered.values() if _replaces(r, stored.get(r.id))]
        final = [r for r in accepted if not r.provisional and r.id not in seqs]
        for name, book in books.items():
            ours = [record.id for record in final if record.host == name]
            seqs |= zip(ours, count(book.last_seq + 1), strict=False)
            _advance_host(connection, name, by=len(ours), batches=fresh)
        count_records(connection, accepted, stored)
        for start in range(0, len(accepted), _ROWS_AT_A_TIME):
            put_records(connection, accepted[start : start + _ROWS_AT_A_TIME], seqs)
        if minutes := _minute_rows(fresh):
            connection.execute(self._add_minutes, minutes)
        return seqs

    def get(self, request_id: str) -> EnergyRecord | None:
        """The record of this id; None where there is none."""
        statement = sa.select(requests).where(requests.c.id == request_id)
        with reading(self._reading) as connection:
            row = connection.execute(statement).mappings().one_or_none()
        return None if row is None else to_record(row)

    def page(self, wanted: RequestFilter, *, cursor: str | None = None, limit: int = 50) -> Page:
        """Records newest first, from `cursor` on; BadQuery where the cursor is none of ours."""
        if not 1 <= limit <= MAX_PAGE:
            raise ValueError(f"limit is {limit}; ask for 1 to {MAX_PAGE} records")
        # One more than asked for tells whether there is a next page.
        statement = select_page(wanted, cursor=cursor, limit=limit + 1)
        with reading(self._reading) as connection:
            rows = connection.execute(statement).mappings().all()
        items = tuple(to_record(row) for row in rows[:limit])
        return Page(items, encode_cursor(items[-1]) if len(rows) > limit else None)

    def ledger(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        by: LedgerBy = "domain",
    ) -> tuple[LedgerLine, ...]:
        """The accounts of each domain over the minutes that begin in [since, until)."""
        with reading(self._reading) as connection:
            dialect.in_one_state(connection)
            if by == "model":
                return read_model_ledger(connection, since=since, until=until)
            return read_ledger(connection, since=since, until=until, by=by)

    def ask(self, question: Callable[[sa.Connection], Answer]) -> Answer:
        """What `question` reads from one state of the database, such as statistics over it all."""
        with reading(self._reading) as connection:
            return question(dialect.in_one_state(connection))

    def audit(self, domain: str, *, host: str) -> Audit:
        """What the records hold of a domain's joules, and what its books say they hold."""
        with reading(self._reading) as connection:
            return read_audit(connection, domain, host=host)

    def close_unfinished(self, host: str, begun: Iterable[EnergyRecord]) -> int:
        """Close what a dead daemon left of `host`; gives the number of records it closed.

        What was left provisional becomes final with quality `gap`; of `begun`, final records of
        requests that had only begun, those are added that no row is there for.
        """
        waiting = {record.id: record for record in begun}
        statement = (
            sa.select(requests)
            .where(requests.c.host == host, requests.c.seq.is_(None))
            .order_by(requests.c.started_at, requests.c.id)
        )
        with reading(self._reading) as connection:
            left = [to_record(row) for row in connection.execute(statement).mappings()]
            known = _stored(connection, list(waiting))
        closed = [_abandoned(record) for record in left]
        closed += [record for id_, record in waiting.items() if id_ not in known]
        self.apply([Batch(host=host, records=tuple(closed))])
        return len(closed)

    def forget_kept(self, host: str, *, before_minute: int) -> None:
        """Throw away what can be divided anew of the host's minutes before that one."""
        with self._writing.begin() as connection:
            forget_kept(connection, host, before_minute=before_minute)

    def keep_loaded(self, host: str, minutes: Sequence[LoadedMinute]) -> None:
        """Add to what is known of which models were loaded when."""
        with self._writing.begin() as connection:
            lock_host(connection, host)
            keep_loaded(connection, host, minutes)


def read_some(
    connection: sa.Connection, wanted: RequestFilter, *, ids: Sequence[str] = ()
) -> Iterator[EnergyRecord]:
    """The records that are wanted, and those of these ids; the oldest first, then the others."""
    found = sa.select(requests).where(*conditions(wanted)).order_by(requests.c.started_at)
    seen = set()
    for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(found).mappings():
        seen.add(row["id"])
        yield to_record(row)
    left = [id_ for id_ in ids if id_ not in seen]
    for these in of_ids(left):
        some = sa.select(requests).where(these)
        yield from map(to_record, connection.execute(some).mappings())


def _latest(records: Iterable[EnergyRecord]) -> dict[str, EnergyRecord]:
    latest: dict[str, EnergyRecord] = {}
    for record in records:
        if _replaces(record, latest.get(record.id)):
            latest[record.id] = record
    return latest


def _replaces(new: EnergyRecord, old: "EnergyRecord | sa.Row[tuple[object]] | None") -> bool:
    if old is None or old.provisional:
        return True
    return not new.provisional and new.revision >= old.revision


def _stored(connection: sa.Connection, ids: Sequence[str]) -> dict[str, sa.Row[tuple[object]]]:
    """What is there already of these ids."""
    columns = (requests.c.id, requests.c.seq, requests.c.provisional, requests.c.revision)
    found: dict[str, sa.Row[tuple[object]]] = {}
    for these in of_ids(ids):
        found |= {row.id: row for row in connection.execute(sa.select(*columns).where(these))}
    return found


def _hosts_of(batches: Iterable[Batch]) -> set[str]:
    return {batch.host for batch in batches}


def _written(batch: Batch, book: Counts) -> bool:
    """True where the host's row says that this batch was committed before."""
    mark = batch.mark
    return mark is not None and mark.writer == book.last_writer and mark.number <= book.last_batch


def _advance_host(
    connection: sa.Connection, host: str, *, by: int, batches: Iterable[Batch]
) -> None:
    """Count `by` new numbers, and keep the mark of the last of the host's `batches`."""
    values: dict[str, object] = {"last_seq": hosts.c.last_seq + by} if by else {}
    marks = [batch.mark for batch in batches if batch.host == host and batch.mark is not None]
    if marks:
        values |= {"last_writer": marks[-1].writer, "last_batch": marks[-1].number}
    if values:
        connection.execute(sa.update(hosts).where(hosts.c.name == host).values(values))


def _minute_rows(batches: Sequence[Batch]) -> list[dict[str, object]]:
    columns = [column.name for column in ledger_minutes.c if column.name != "host"]
    return [
        {"host": batch.host} | {name: getattr(minute, name) for name in columns}
        for batch in batches
        for minute in batch.minutes
    ]


def _abandoned(record: EnergyRecord) -> EnergyRecord:
    return replace(
        record,
        provisional=False,
        quality=Quality.GAP,
        quality_reasons=(*record.quality_reasons, "daemon_stopped"),
    )
