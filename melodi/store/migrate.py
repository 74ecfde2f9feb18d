"""Bringing a database's tables to the version that this code expects."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from melodi.errors import StoreError
from melodi.store.database import database_path, open_engine, reading
from melodi.store.dialect import lock_schema, writing


class SchemaState(StrEnum):
    """How a database's tables stand to this code."""

    EMPTY = "empty"
    BEHIND = "behind"
    CURRENT = "current"
    AHEAD = "ahead"
    """Made by a newer MELODI: this one does not know its version."""


def upgrade(url: str) -> None:
    """Make or change the tables to the newest version.

    Raises StoreError as `open_engine` does, and where a newer MELODI has made them.
    """
    _run(url, lambda config: command.upgrade(config, "head"))


def downgrade(url: str, revision: str) -> None:
    """Take the tables back to `revision`; `base` leaves none."""
    _run(url, lambda config: command.downgrade(config, revision))


def check(url: str) -> SchemaState:
    """What `upgrade` would meet; a file that is not there is EMPTY and is not made."""
    path = database_path(url)
    if path is not None and not _exists(path):
        return SchemaState.EMPTY
    engine = open_engine(url)
    try:
        with reading(engine) as connection:
            return _state_of(connection)
    finally:
        engine.dispose()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise StoreError(
            f"cannot look for {path}: {error.strerror}; run as its owner, or set "
            "MELODI_DATABASE__URL to another file"
        ) from None


def _state_of(connection: sa.Connection) -> SchemaState:
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        return SchemaState.EMPTY
    scripts = ScriptDirectory.from_config(_config())
    if revision == scripts.get_current_head():
        return SchemaState.CURRENT
    known = {script.revision for script in scripts.walk_revisions()}
    return SchemaState.BEHIND if revision in known else SchemaState.AHEAD


def _run(url: str, act: Callable[[Config], None]) -> None:
    engine = open_engine(url)
    config = _config()
    try:
        with writing(engine).begin() as connection:
            lock_schema(connection)
            if _state_of(connection) is SchemaState.AHEAD:
                raise StoreError(
                    "the database was made by a newer MELODI: upgrade this one, "
                    "or set MELODI_DATABASE__URL to another database"
                )
            config.attributes["connection"] = connection
            act(config)
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    return config


def _folder() -> Path:
    """Inside the package once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"
