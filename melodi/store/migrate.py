"""Bringing a database's tables to the version that this code expects."""

from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import melodi
from melodi.store.database import database_path, open_engine
from melodi.store.dialect import writing


class SchemaState(StrEnum):
    """How a database's tables stand to this code."""

    EMPTY = "empty"
    BEHIND = "behind"
    CURRENT = "current"
    AHEAD = "ahead"
    """Made by a newer MELODI: this one does not know its version."""


def upgrade(url: str) -> None:
    """Make or change the tables to the newest version. Raises StoreError as `open_engine` does."""
    _run(url, lambda config: command.upgrade(config, "head"))


def downgrade(url: str, revision: str) -> None:
    """Take the tables back to `revision`; `base` leaves none."""
    _run(url, lambda config: command.downgrade(config, revision))
