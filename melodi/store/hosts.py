"""What is kept of a host itself: its row, which its writers lock, and its power domains."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa

from collectors.base import Domain
from melodi.errors import StoreError
from melodi.store import dialect
from melodi.store.database import reading
from melodi.store.schema import domains, hosts

Counts = sa.Row[tuple[int, str | None, int | None]]
"""The last seq of a host, its last writer, and that writer's last batch."""

_OF_A_DOMAIN = ("kind", "scope", "source", "origin", "estimated")


class HostStore:
    """Hosts and their domains in one database; safe to use from several threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self._reading = engine
        self._writing = dialect.writing(engine)

    def keep(
        self,
        host: str,
        *,
        seen_at: datetime,
        machine_id: str | None,
        cpu: str | None,
        inventory: Mapping[str, object],
    ) -> None:
        """Keep what this host is; the moment it was first seen stays."""
        statement = dialect.insert(hosts).values(
            name=host,
            machine_id=machine_id,
            cpu=cpu,
            inventory=inventory,
            first_seen_at=seen_at,
            last_seen_at=seen_at,
        )
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "machine_id": new.machine_id,
                "cpu": new.cpu,
                "inventory": new.inventory,
                "first_seen_at": sa.func.coalesce(hosts.c.first_seen_at, new.first_seen_at),
                "last_seen_at": new.last_seen_at,
            },
        )
        with self._writing.begin() as connection:
            connection.execute(statement)

    def keep_domains(self, host: str, known: Iterable[Domain], *, seen_at: datetime) -> None:
        """Keep what this host's power domains are; the idle watts learned of them stay."""
        rows = [
            {"host": host, "name": domain.name, "last_seen_at": seen_at}
            | {name: getattr(domain, name) for name in _OF_A_DOMAIN}
            for domain in known
        ]
        statement = dialect.insert(domains)
        statement = statement.on_conflict_do_update(
            index_elements=["host", "name"],
            set_={name: statement.excluded[name] for name in (*_OF_A_DOMAIN, "last_seen_at")},
        )
        with self._writing.begin() as connection:
            lock_host(connection, host)
            if rows:
                connection.execute(statement, rows)

    def idle_watts(self, host: str) -> dict[str, float]:
        """The idle power learned of each of the host's domains; one not learned yet is left out."""
        statement = sa.select(domains.c.name, domains.c.idle_watts).where(
            domains.c.host == host, domains.c.idle_watts.is_not(None)
        )
        with reading(self._reading) as connection:
            return {row.name: row.idle_watts for row in connection.execute(statement)}

    def keep_idle_watts(self, host: str, watts: Mapping[str, float]) -> None:
        """Keep the idle power learned of domains; StoreError where one was never kept."""
        with self._writing.begin() as connection:
            for name, value in watts.items():
                result = connection.execute(
                    sa.update(domains)
                    .where(domains.c.host == host, domains.c.name == name)
                    .values(idle_watts=value)
                )
                if result.rowcount == 0:
                    raise StoreError(f"{host} has no domain {name!r}; call keep_domains first")


def lock_host(connection: sa.Connection, host: str) -> Counts:
    """The host's counts, its row locked until the transaction ends; it is made where missing."""
    # Not its name, though it would stay the same: SQLite reads all rows that refer to a key
    # which is written.
    statement = dialect.insert(hosts).values(name=host)
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={"last_seq": hosts.c.last_seq}
    )
    counts = (hosts.c.last_seq, hosts.c.last_writer, hosts.c.last_batch)
    return connection.execute(statement.returning(*counts)).one()
