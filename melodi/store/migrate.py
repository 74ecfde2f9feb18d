"""Bringing a database's tables to the version that this code expects."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from melodi.errors import StoreError
from melodi.store.database import database_path, open_engine, reading
from melodi.store.dialect import lock_schema, writing

if TYPE_CHECKING:
    from alembic.config import Config


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

    def act(connection: sa.Connection) -> None:
        if _state_of(connection) is not SchemaState.CURRENT:
            from alembic import command

            command.upgrade(_config(connection), "head")

    _change(url, act)


def downgrade(url: str, revision: str) -> None:
    """Take the tables back to `revision`; `base` leaves none."""

    def act(connection: sa.Connection) -> None:
        from alembic import command

        command.downgrade(_config(connection), revision)

    _change(url, act)


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
    """Without Alembic, whose import takes longer than all else that a verb does here."""
    revision = None
    if sa.inspect(connection).has_table("alembic_version"):
        revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    if revision is None:
        return SchemaState.EMPTY
    known = {path.stem.partition("_")[0] for path in (_folder() / "versions").glob("[0-9]*.py")}
    if revision not in known:
        return SchemaState.AHEAD
    return SchemaState.CURRENT if revision == max(known) else SchemaState.BEHIND


def _change(url: str, act: Callable[[sa.Connection], None]) -> None:
    engine = open_engine(url)
    try:
        with writing(engine).begin() as connection:
            lock_schema(connection)
            if _state_of(connection) is SchemaState.AHEAD:
                raise StoreError(
                    "the database was made by a newer MELODI: upgrade this one, "
                    "or set MELODI_DATABASE__URL to another database"
                )
            act(connection)
    finally:
        engine.dispose()


def _config(connection: sa.Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _folder() -> Path:
    """Inside the package once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"
