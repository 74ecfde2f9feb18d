"""Opening a database, or being told why not."""

import os
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgres import TEMPLATE, Postgres

from melodi.errors import StoreError
from melodi.store.database import database_path, open_engine, reading


def test_a_missing_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """The default folder need not exist; what it will hold may be private."""
    folder = tmp_path / "a" / "melodi"
    open_engine(f"sqlite:///{folder}/melodi.db").dispose()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_sqlite_is_set_up_to_lose_nothing_and_to_give_space_back(sqlite_url: str) -> None:
    """Every connection has the settings that the writer and the readers rely on."""
    expected = {
        "auto_vacuum": 2,
        "busy_timeout": 5000,
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
    }
    engine = open_engine(sqlite_url)
    with engine.connect() as connection:
        for pragma, value in expected.items():
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("melodi.db", "cannot be understood; set MELODI_DATABASE__URL"),
        ("mysql://root@127.0.0.1/melodi", "'mysql' is not supported; set MELODI_DATABASE__URL"),
        ("sqlite://", "set MELODI_DATABASE__URL to sqlite:////path"),
        ("sqlite:///:memory:", "set MELODI_DATABASE__URL to sqlite:////path"),
        ("sqlite:////dev/null/x/melodi.db", "cannot make the folder /dev/null/x"),
        ("sqlite:////tmp", "/tmp is a folder"),
    ],
)
def test_an_impossible_url_says_what_to_do(url: str, remedy: str) -> None:
    """Each error names what is wrong and the setting that mends it."""
    with pytest.raises(StoreError, match=remedy):
        open_engine(url)


def test_an_error_does_not_repeat_a_password() -> None:
    """A URL with credentials in it stays out of the message."""
    with pytest.raises(StoreError) as caught:
        open_engine("postgresql://me:hush@127.0.0.1/melodi")
    assert "hush" not in str(caught.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """A text file in the database's place is left as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 100)
    with pytest.raises(StoreError, match=f"cannot use {path} .* move the file away"):
        open_engine(f"sqlite:///{path}")
    assert path.read_text().startswith("dear diary")


@pytest.mark.parametrize(
    ("denied", "remedy"),
    [
        ("folder", "the folder is read-only; set MELODI_DATABASE__URL or run as its owner"),
        ("file", "permission denied; set MELODI_DATABASE__URL or run as its owner"),
    ],
)
def test_what_may_not_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denied: str, remedy: str
) -> None:
    """A read-only folder and a closed file are told apart, each with its remedy."""
    path = tmp_path / "melodi.db"
    path.touch()
    closed = path.parent if denied == "folder" else path
    allowed = os.access
    # Root may write everywhere, so the system's answer is bent rather than the folder.
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != closed and allowed(p, mode))
    with pytest.raises(StoreError, match=f"{path}.*{remedy}"):
        open_engine(f"sqlite:///{path}")


@pytest.fixture
def guarded(postgres: Postgres) -> Postgres:
    """The same server, with a role that needs its password."""
    hba = Path(postgres.execute("SHOW hba_file"))
    rule = "local all guarded scram-sha-256\n"
    if not hba.read_text().startswith(rule):
        hba.write_text(rule + hba.read_text())
        postgres.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'", "SELECT pg_reload_conf()")
    return postgres


def test_a_postgres_that_refuses_says_what_to_mend(guarded: Postgres) -> None:
    """Password, user, database and server each have a remedy of their own, without the password."""
    guarded_role = {"username": "guarded", "password": "wrong-and-secret"}
    mended = {
        guarded.url(TEMPLATE, **guarded_role): "mend user and password in MELODI_DATABASE__URL",
        guarded.url(TEMPLATE, username="nobody"): "make that role, or mend the user",
        guarded.url("nowhere"): r"make it \(createdb\), or mend the name",
        "postgresql://me:wrong-and-secret@127.0.0.1:9/melodi": "start the server, or mend host",
    }
    for url, remedy in mended.items():
        with pytest.raises(StoreError, match=f"cannot use the Postgres database: .*{remedy}") as no:
            open_engine(url)
        assert "secret" not in str(no.value)


def test_the_right_password_opens(guarded: Postgres) -> None:
    """The test above fails for the password alone."""
    engine = open_engine(guarded.url(TEMPLATE, username="guarded", password="right"))
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT current_user").scalar() == "guarded"
    engine.dispose()


def test_postgres_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named as pip takes it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'melodi-energy\[postgres\]'"):
        open_engine("postgresql+psycopg://127.0.0.1/melodi")


def test_only_sqlite_has_a_file(sqlite_url: str, postgres_url: str) -> None:
    """What keeps files beside the database learns whether there is one."""
    assert database_path(sqlite_url) == Path(sqlite_url.removeprefix("sqlite:///"))
    assert database_path(postgres_url) is None


def test_a_read_that_fails_is_a_store_error(engine: sa.Engine) -> None:
    """What the database says is told, and that one may ask again."""
    with (
        pytest.raises(StoreError, match=r"cannot be read: .*no_such_table.*ask again"),
        reading(engine) as connection,
    ):
        connection.exec_driver_sql("SELECT * FROM no_such_table")


def test_a_postgres_that_was_restarted_is_used_again(postgres: Postgres, postgres_url: str) -> None:
    """A pooled connection that the server has cut is replaced unseen."""
    engine = open_engine(postgres_url)
    with reading(engine) as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    postgres.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() != pid
    engine.dispose()
