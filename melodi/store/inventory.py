"""What there is: the hosts that write to this database, and the models that they served."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from melodi.store.rollups import begin_of_hour
from melodi.store.schema import hosts, rollups


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLine:
    """A machine that measures."""

    name: str
    machine_id: str | None
    cpu: str | None
    inventory: Mapping[str, object] | None
    first_seen_at: datetime | None
    last_seen_at: datetime | None
    records: int
    """Its final records so far: the last of its numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLine:
    """A model as one backend of one host served it."""

    host: str
    backend: str
    model: str | None
    origin: str | None
    count: int
    """Final records, of whatever quality."""
    first_hour: datetime
    last_hour: datetime
    """The hours in which the first and the last of them began."""


def read_hosts(connection: sa.Connection) -> list[HostLine]:
    """By name."""
    statement = sa.select(hosts).order_by(hosts.c.name)
    return [
        HostLine(
            name=row["name"],
            machine_id=row["machine_id"],
            cpu=row["cpu"],
            inventory=row["inventory"],
            first_seen_at=row["first_seen_at"],
            last_seen_at=row["last_seen_at"],
            records=row["last_seq"],
        )
        for row in connection.execute(statement).mappings()
    ]


def read_models(connection: sa.Connection) -> list[ModelLine]:
    """By host, backend and model; what is simulated stands apart."""
    names = ("host", "backend", "model", "origin")
    keys = [rollups.c[name] for name in names]
    statement = sa.select(
        *keys,
        sa.func.sum(rollups.c["count"]).label("count"),
        sa.func.min(rollups.c.hour).label("first"),
        sa.func.max(rollups.c.hour).label("last"),
    )
    rows = connection.execute(statement.group_by(*keys).order_by(*keys)).mappings()
    return [
        ModelLine(
            host=row["host"],
            backend=row["backend"],
            model=row["model"] or None,
            origin=row["origin"] or None,
            count=int(row["count"]),
            first_hour=begin_of_hour(row["first"]),
            last_hour=begin_of_hour(row["last"]),
        )
        for row in rows
    ]
