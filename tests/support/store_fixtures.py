"""An empty store for each test, on every database."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgres import TEMPLATE, Postgres, postgres_server

from melodi.store.database import open_engine
from melodi.store.migrate import upgrade
from melodi.store.records import RecordStore


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the tables and no rows; migrating takes longer than copying."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real Postgres."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def sqlite_url(empty_database: Path, tmp_path: Path) -> str:
    """The URL of a SQLite database of the test's own."""
    path = shutil.copy(empty_database, tmp_path / "melodi.db")
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of a Postgres database of the test's own."""
    url = postgres.create(template=TEMPLATE)
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a database of the test's own."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    """An engine on it."""
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> RecordStore:
    """The store under contract: whatever holds here must hold on every database."""
    return RecordStore(engine)


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[RecordStore]:
    """The same on SQLite alone, for laws that take many examples."""
    engine = open_engine(sqlite_url)
    yield RecordStore(engine)
    engine.dispose()
