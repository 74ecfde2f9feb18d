"""Tables made and unmade."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres import Postgres

from melodi.errors import StoreError
from melodi.store.migrate import SchemaState, check, downgrade, upgrade
from melodi.store.schema import metadata


@pytest.fixture(params=["sqlite", "postgres"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables; on SQLite there is no file yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder/melodi.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create()


def test_looking_alone_makes_no_file(tmp_path: Path) -> None:
    """Asking for the state of a database that is not there leaves the folder as it is."""
    assert check(f"sqlite:///{tmp_path}/folder/melodi.db") is SchemaState.EMPTY
    assert not list(tmp_path.iterdir())


def test_up_down_and_up_again(bare_url: str) -> None:
    """Each way leaves the state it says."""
    states = [check(bare_url)]
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


def test_scripts_are_named_after_their_versions() -> None:
    """In order, so that the newest one is known without reading any of them."""
    folder = Path(__file__).parents[3] / "migrations"
    scripts = ScriptDirectory(str(folder))
    ordered = [script.revision for script in scripts.walk_revisions("base", "heads")][::-1]
    files = [path.name for path in sorted((folder / "versions").glob("*.py"))]
    assert [name.partition("_")[0] for name in files] == ordered == sorted(ordered)
    assert ordered[-1] == scripts.get_current_head()


def test_current_tables_need_no_alembic(sqlite_url: str) -> None:
    """A daemon that starts again does not wait for its import."""
    program = (
        "import sys; from melodi.store.migrate import upgrade; "
        f"upgrade({sqlite_url!r}); print('alembic' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"


def test_many_may_upgrade_at_once(bare_url: str) -> None:
    """Hosts that start together make the tables once, and none of them fails."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, [bare_url] * 4))
    assert check(bare_url) is SchemaState.CURRENT


def test_a_newer_database_is_known_as_such(url: str, engine: sa.Engine) -> None:
    """A version that this code does not know is AHEAD, not BEHIND."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert check(url) is SchemaState.AHEAD
    with pytest.raises(StoreError, match="made by a newer MELODI: upgrade this one"):
        upgrade(url)
    assert check(url) is SchemaState.AHEAD


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    """Upgrading says what opening says."""
    path = tmp_path / "melodi.db"
    path.write_text("dear diary, " * 100)
    with pytest.raises(StoreError, match="move the file away"):
        upgrade(f"sqlite:///{path}")
