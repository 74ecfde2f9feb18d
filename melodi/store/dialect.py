"""All in which one database differs from another: types, upserts, how SQLite is opened."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_PRAGMAS = (
    # Must come first: once a page has been written the vacuum mode is fixed.
    "auto_vacuum = INCREMENTAL",
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
)


class Instant(sa.types.TypeDecorator[datetime]):
    """A moment to the microsecond: BIGINT since 1970 on SQLite, TIMESTAMPTZ on Postgres."""

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        native: sa.types.TypeEngine[Any] = (
            sa.DateTime(timezone=True) if dialect.name == "postgresql" else sa.BigInteger()
        )
        return dialect.type_descriptor(native)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> object:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; make it aware before it is stored")
        return value if dialect.name == "postgresql" else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        moment = value if dialect.name == "postgresql" else _EPOCH + value * _MICROSECOND
        return cast("datetime", moment).astimezone(UTC)


Json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
"""A JSON document; unknown is SQL NULL."""


def insert(table: sa.Table) -> sqlite.Insert:
    """An INSERT that can also say what to do on conflict."""
    return sqlite.insert(table)


def insert_or_replace(table: sa.Table, *, key: Sequence[str]) -> sqlite.Insert:
    """An INSERT that overwrites every column of a row that has the same key."""
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(key),
        set_={c.name: statement.excluded[c.name] for c in table.c if c.name not in key},
    )


def insert_or_add(table: sa.Table, *, key: Sequence[str]) -> sqlite.Insert:
    """An INSERT that adds every column to that of a row that has the same key."""
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(key),
        set_={c.name: c + statement.excluded[c.name] for c in table.c if c.name not in key},
    )


def prepare_sqlite(engine: sa.Engine) -> None:
    """Set each new connection up, and let `writing` decide how its transactions begin."""

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        # The driver's own BEGIN comes too late and too weak; ours is sent below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")


def writing(engine: sa.Engine) -> sa.Engine:
    """The same engine, with transactions that take the write lock as they begin.

    One that starts by reading and writes later would fail at once, without waiting, if somebody
    else wrote in between.
    """
    return engine.execution_options(sqlite_begin="IMMEDIATE")
