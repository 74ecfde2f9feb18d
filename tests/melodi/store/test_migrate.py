"""Tables made and unmade."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from melodi.errors import StoreError
from melodi.store.migrate import SchemaState, check, downgrade, upgrade
from melodi.store.schema import metadata


@pytest.fixture
def bare_url(tmp_path: Path) -> str:
    """A database that does not exist yet."""
    return f"sqlite:///{tmp_path}/folder/melodi.db"


def test_up_down_and_up_again(bare_url: str) -> None:
    """Each way leaves the state it says, and looking alone makes no file."""
    states = [check(bare_url)]
    assert not Path(bare_url.removeprefix("sqlite:///")).parent.exists()
    for step in (upgrade, lambda url: downgrade(url, "base"), upgrade, upgrade):
        step(bare_url)
        states.append(check(bare_url))
    empty, current = SchemaState.EMPTY, SchemaState.CURRENT
    assert states == [empty, current, empty, current, current]


def test_migrations_make_what_the_schema_says(engine: sa.Engine) -> None:
    """Nothing is left to migrate between the newest version and the tables in code."""
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_migrations_run_from_any_folder(
    bare_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scripts are found from the code, not from where one stands."""
    monkeypatch.chdir(tmp_path)
    upgrade(bare_url)
    assert check(bare_url) is SchemaState.CURRENT


def test_a_newer_database_is_known_as_such(url: str, engine: sa.Engine) -> None:
    """A version that this code does not know is AHEAD, not BEHIND."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert check(url) is SchemaState.AHEAD


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    """Upgrading says what opening says."""
    path = tmp_path / "melodi.db"
    path.write_text("dear diary, " * 100)
    with pytest.raises(StoreError, match="move the file away"):
        upgrade(f"sqlite:///{path}")
