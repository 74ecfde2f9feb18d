"""Opening a database, or being told why not."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from melodi.errors import StoreError
from melodi.store.database import open_engine


def test_a_missing_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """The default folder need not exist; what it will hold may be private."""
    folder = tmp_path / "a" / "melodi"
    open_engine(f"sqlite:///{folder}/melodi.db").dispose()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_sqlite_is_set_up_to_lose_nothing_and_to_give_space_back(engine: sa.Engine) -> None:
    """Every connection has the settings that the writer and the readers rely on."""
    expected = {
        "auto_vacuum": 2,
        "busy_timeout": 5000,
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
    }
    with engine.connect() as connection:
        for pragma, value in expected.items():
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


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
