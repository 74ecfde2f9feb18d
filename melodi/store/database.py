"""Opening the database, with errors that say what to do."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import orjson
import sqlalchemy as sa

from melodi.errors import StoreError
from melodi.store.dialect import prepare_sqlite

_REMEDY = "set MELODI_DATABASE__URL"
_CONNECT_SECONDS = 5
_CONNECTIONS_KEPT, _MOST_CONNECTIONS = 2, 15
"""One is the writer's; each that is kept holds files open, and pages of the database."""
_SQLITE = ("sqlite", "sqlite+pysqlite")
_POSTGRES = ("postgresql", "postgresql+psycopg")
_REFUSALS = (
    ("password", "mend user and password in MELODI_DATABASE__URL"),
    ("role", "make that role, or mend the user in MELODI_DATABASE__URL"),
    ("database", "make it (createdb), or mend the name in MELODI_DATABASE__URL"),
    ("", "start the server, or mend host and port in MELODI_DATABASE__URL"),
)
"""A word in what Postgres says when it refuses a connection, and what helps then."""


def open_engine(url: str) -> sa.Engine:
    """An engine on the SQLite file or the Postgres database that `url` names.

    The folder of a SQLite file is made where it is missing. Raises StoreError where the database
    cannot be used. It says nothing about the tables in it: see `melodi.store.migrate`.
    """
    parts = _parse(url)
    return _open_postgres(parts) if parts.drivername in _POSTGRES else _open_sqlite(parts)


def database_path(url: str) -> Path | None:
    """The file behind a database URL; None: it is a server's. StoreError as `open_engine`."""
    parts = _parse(url)
    return None if parts.drivername in _POSTGRES else _path_of(parts)


@contextlib.contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection to read on; StoreError where the database fails at it."""
    try:
        with engine.connect() as connection:
            yield connection
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
        reason = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise StoreError(
            f"the database cannot be read: {_in_one_line(reason)}; see to it, and ask again"
        ) from error


def _parse(url: str) -> sa.URL:
    try:
        parts = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        # The URL is not repeated: it may hold a password.
        raise StoreError(
            f"the database URL cannot be understood; {_REMEDY} to sqlite:////path/to/melodi.db"
        ) from error
    if parts.drivername not in _SQLITE + _POSTGRES:
        raise StoreError(
            f"a database of the kind {parts.drivername!r} is not supported; {_REMEDY} "
            "to sqlite:////path/to/melodi.db or postgresql+psycopg://user:password@host/name"
        )
    return parts


def _open_sqlite(parts: sa.URL) -> sa.Engine:
    path = _path_of(parts)
    _make_folder(path.parent)
    _check_access(path)
    engine = _engine(parts)
    prepare_sqlite(engine)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except sa.exc.DBAPIError as error:
        engine.dispose()
        raise StoreError(
            f"cannot use {path} as a database: {error.orig}; "
            f"move the file away or {_REMEDY} to another one"
        ) from error
    return engine


def _open_postgres(parts: sa.URL) -> sa.Engine:
    timeout = {} if "connect_timeout" in parts.query else {"connect_timeout": _CONNECT_SECONDS}
    try:
        # A connection that the server has dropped meanwhile is noticed before it is used.
        engine = _engine(
            parts.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args=timeout
        )
    except ImportError as error:
        raise StoreError(
            "psycopg is not installed; for Postgres: pip install 'melodi-energy[postgres]'"
        ) from error
    try:
        engine.connect().close()
    except sa.exc.DBAPIError as error:
        engine.dispose()
        reason = _in_one_line(error.orig)
        remedy = next(remedy for word, remedy in _REFUSALS if word in _refusal(reason))
        raise StoreError(f"cannot use the Postgres database: {reason}; {remedy}") from error
    return engine


def _in_one_line(reason: object) -> str:
    return " ".join(str(reason).split())


def _refusal(reason: str) -> str:
    """What the server itself said; nothing where none was reached."""
    return reason.partition("FATAL:")[2]


def _engine(parts: sa.URL, **options: object) -> sa.Engine:
    return sa.create_engine(
        parts,
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
        pool_size=_CONNECTIONS_KEPT,
        max_overflow=_MOST_CONNECTIONS - _CONNECTIONS_KEPT,
        **options,
    )


def _path_of(parts: sa.URL) -> Path:
    name = parts.database
    if not name or name.startswith((":memory:", "file:")):
        raise StoreError(
            "a database in memory cannot be shared between threads; "
            f"{_REMEDY} to sqlite:////path/to/melodi.db"
        )
    return Path(name)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {folder} for the database: {error.strerror}; "
            f"make it yourself or {_REMEDY} to a file elsewhere"
        ) from error


def _check_access(path: Path) -> None:
    # SQLite keeps its log beside the file, so the folder must be writable as well.
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StoreError(
            f"cannot write {path}: the folder is read-only; {_REMEDY} or run as its owner"
        )
    if path.is_dir():
        raise StoreError(f"{path} is a folder; {_REMEDY} to a file in it")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise StoreError(
            f"cannot read and write {path}: permission denied; {_REMEDY} or run as its owner"
        )


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()
