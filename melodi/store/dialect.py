"""All in which one database differs from another: types, upserts, transactions, failures."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from melodi.clock import EPOCH

_MICROSECOND = timedelta(microseconds=1)

_PRAGMAS = (
    # Must come first: once a page has been written the vacuum mode is fixed.
    "auto_vacuum = INCREMENTAL",
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
)

_BAD_DATA = (sa.exc.IntegrityError, sa.exc.DataError, sa.exc.ProgrammingError)
_NO_SUCH_TABLE_OR_RIGHT = "42"
_SCHEMA_LOCK = 0x6D656C6F6469
"""Any number that all of MELODI shares: this is its name in hexadecimal."""


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
        return value if dialect.name == "postgresql" else (value - EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        moment = value if dialect.name == "postgresql" else EPOCH + value * _MICROSECOND
        return cast("datetime", moment).astimezone(UTC)


Json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
"""A JSON document; unknown is SQL NULL."""

RequestId = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""A UUIDv7 as text, in the order of its bytes: that of time, on every database."""


def insert(table: sa.Table) -> postgresql.Insert:
    """An INSERT that can also say what to do on conflict; SQLite reads the same words."""
    return postgresql.insert(table)


def insert_or_replace(table: sa.Table, *, key: Sequence[str]) -> postgresql.Insert:
    """An INSERT that overwrites every column of a row that has the same key."""
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(key),
        set_={c.name: statement.excluded[c.name] for c in table.c if c.name not in key},
    )


def insert_or_add(table: sa.Table, *, key: Sequence[str]) -> postgresql.Insert:
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

    On SQLite one that starts by reading and writes later would fail at once, without waiting, if
    somebody else wrote in between. Postgres locks rows instead and does not know the option.
    """
    return engine.execution_options(sqlite_begin="IMMEDIATE")


def in_one_state(connection: sa.Connection) -> sa.Connection:
    """The connection, for a transaction that sees one state of the database throughout.

    On SQLite each does; on Postgres each statement would see what was committed before it.
    """
    if connection.dialect.name == "postgresql":
        return connection.execution_options(isolation_level="REPEATABLE READ")
    return connection


def lock_schema(connection: sa.Connection) -> None:
    """Keep others from changing the tables until this transaction, made by `writing`, ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))


def database_failed(error: Exception) -> bool:
    """True where the database failed, so that the same data can be written later.

    A table or a right that is missing is the database's fault; drivers call it a programming
    error, as they call data that they cannot send.
    """
    if not isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, sa.exc.TimeoutError)
    state = getattr(error.orig, "sqlstate", None) or ""
    return not isinstance(error, _BAD_DATA) or state.startswith(_NO_SUCH_TABLE_OR_RIGHT)
