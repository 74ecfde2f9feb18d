"""Opening the database, with errors that say what to do."""

import os
from pathlib import Path

import orjson
import sqlalchemy as sa

from melodi.errors import StoreError
from melodi.store.dialect import prepare_sqlite

_REMEDY = "set MELODI_DATABASE__URL"


def open_engine(url: str) -> sa.Engine:
    """An engine on the SQLite file that `url` names; its folder is made where it is missing.

    Raises StoreError where the file cannot be used. It says nothing about the tables in it:
    see `melodi.store.migrate`.
    """
    path = database_path(url)
    _make_folder(path.parent)
    _check_access(path)
    engine = sa.create_engine(url, json_serializer=_to_json, json_deserializer=orjson.loads)
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


def database_path(url: str) -> Path:
    """The file behind a database URL; StoreError where there is none."""
    try:
        parts = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        # The URL is not repeated: it may hold a password.
        raise StoreError(
            f"the database URL cannot be understood; {_REMEDY} to sqlite:////path/to/melodi.db"
        ) from error
    if parts.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StoreError(
            f"a database of the kind {parts.drivername!r} is not supported; "
            f"{_REMEDY} to sqlite:////path/to/melodi.db"
        )
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
