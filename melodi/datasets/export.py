"""Writes stored records to one file: Parquet, JSON lines or CSV, in bounded memory.

Records leave the database in batches of columns (ADBC), oldest first, and each batch is cast to
one fixed schema: a database without types of its own would else give each batch its own.
A process that has the same SQLite file open otherwise must not call this: the driver brings a
SQLite of its own, and two in one process do not see each other's locks.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa  # type: ignore[import-untyped]
import sqlalchemy as sa

from melodi.datasets.columns import COLUMNS
from melodi.datasets.selection import Export
from melodi.datasets.tables import writing
from melodi.errors import StoreError
from melodi.store.database import database_path
from melodi.store.queries import conditions
from melodi.store.schema import requests

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection

ROWS_AT_ONCE = 10_000

_ARROW = {
    "string": pa.string(),
    "json": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
}


def arrow_schema() -> pa.Schema:
    """The schema of every export: names, types, and each column's description and unit."""
    return pa.schema(
        [
            pa.field(
                name,
                _ARROW[column.arrow_type],
                metadata={"description": column.description, "unit": column.unit or ""},
            )
            for name, column in COLUMNS.items()
        ]
    )


def export_file(
    url: str, path: Path, what: Export, *, on_rows: Callable[[int], object] = lambda _: None
) -> int:
    """Write the records to `path`, which is there whole or not at all; gives their number.

    `on_rows` hears of each batch's length. Raises StoreError where the database cannot be read
    or the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as sink:
            count = export_to(url, sink, what, on_rows=on_rows)
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}; choose another --out") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return count


def export_to(
    url: str, sink: BinaryIO, what: Export, *, on_rows: Callable[[int], object] = lambda _: None
) -> int:
    """As `export_file`, to an open file or pipe, which stays open."""
    count = 0
    with _opened(url) as source, writing(what.format, sink, arrow_schema()) as write:
        for batch in _batches(source, what):
            write(batch)
            count += batch.num_rows
            on_rows(batch.num_rows)
    return count


def count_rows(url: str, what: Export) -> int:
    """How many records an export would write now."""
    with _opened(url) as source:
        statement = sa.select(sa.func.count()).select_from(requests).where(*_where(what))
        return int(source.fetch(statement)[0][0].as_py())


@dataclass(frozen=True, slots=True)
class _Source:
    """An open database; all its queries see the same moment."""

    connection: "Connection"
    dialect: sa.Dialect

    def fetch(self, statement: sa.Select[Any]) -> pa.Table:
        """All that `statement` gives."""
        text = statement.compile(dialect=self.dialect, compile_kwargs={"literal_binds": True})
        with self.connection.cursor() as cursor:
            if self.dialect.name == "sqlite":
                # SQLite's columns have no types: the driver takes them from so many rows.
                options = {"adbc.sqlite.query.batch_rows": ROWS_AT_ONCE}
                cursor.adbc_statement.set_options(**options)
            cursor.execute(str(text))
            return cursor.fetch_arrow_table()


@contextlib.contextmanager
def _opened(url: str) -> Iterator[_Source]:
    import adbc_driver_manager

    # With named parameters the dialect does not double the per cent signs of the text.
    make_dialect: Any = sa.make_url(url).get_dialect()
    dialect = make_dialect(paramstyle="named")
    try:
        with _connect(url) as connection:
            yield _Source(connection, dialect)
    except adbc_driver_manager.Error as error:
        reason = str(error).partition("\n")[0]
        raise StoreError(f"the database cannot be exported: {reason}; see to it") from error


def _connect(url: str) -> "Connection":
    path = database_path(url)
    if path is not None:
        from adbc_driver_sqlite import dbapi as sqlite_dbapi

        if not path.exists():
            raise StoreError(f"there is no database at {path}; record something first: melodi run")
        return sqlite_dbapi.connect(str(path))
    try:
        from adbc_driver_postgresql import dbapi as postgres  # type: ignore[import-untyped]
    except ImportError as error:
        raise StoreError(
            "the driver is not installed; for Postgres: pip install 'melodi-energy[postgres]'"
        ) from error
    plain = sa.make_url(url).set(drivername="postgresql")
    connection: Connection = postgres.connect(plain.render_as_string(hide_password=False))
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    return connection


def _batches(source: _Source, what: Export) -> Iterator[pa.RecordBatch]:
    place = (requests.c.started_at, requests.c.id)
    statement = (
        sa.select(*(requests.c[name] for name in COLUMNS))
        .where(*_where(what))
        .order_by(*place)
        .limit(ROWS_AT_ONCE)
    )
    after: tuple[datetime, str] | None = None
    while True:
        some = statement
        if after is not None:
            values = (sa.literal(v, c.type) for v, c in zip(after, place, strict=True))
            some = statement.where(sa.tuple_(*place) > sa.tuple_(*values))
        batch = _typed(source.fetch(some))
        if batch.num_rows:
            yield batch
            last = batch.slice(batch.num_rows - 1)
            after = (last["started_at"][0].as_py(), last["id"][0].as_py())
        if batch.num_rows < ROWS_AT_ONCE:
            return


def _where(what: Export) -> Iterator[sa.ColumnElement[bool]]:
    if not what.provisional:
        yield requests.c.provisional.is_(False)
    yield from conditions(what.wanted)


def _typed(table: pa.Table) -> pa.RecordBatch:
    """The rows as one batch of the fixed schema."""
    schema = arrow_schema()
    columns = [_cast(table[name], schema.field(name).type) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    whole = column.combine_chunks()
    if pa.types.is_timestamp(kind) and pa.types.is_integer(whole.type):
        whole = whole.cast(pa.int64())
    if isinstance(whole, pa.ExtensionArray):
        whole = whole.storage
    return whole.cast(kind)
