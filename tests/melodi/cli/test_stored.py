"""Verbs that look at the database say what is wrong with it, and leave it alone."""

import contextlib
import sqlite3

import pytest
from command import Shell, is_clear

READERS = [
    ("requests", "--json"),
    ("stats",),
    ("ledger",),
    ("export", "--out", "records.parquet"),
]


def sql(shell: Shell, *statements: str) -> list[str]:
    """The default database as SQL, after these statements."""
    path = shell.folder / "data" / "melodi" / "melodi.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        return list(connection.iterdump())


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_an_empty_home_stays_empty(shell: Shell, words: tuple[str, ...]) -> None:
    """Nothing is recorded yet: it says how to begin, and makes no database."""
    ended = shell.melodi(*words)
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("melodi: nothing is recorded yet")
    assert "melodi serve" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(shell.folder.iterdir()) == []


def test_a_newer_database_is_left_to_a_newer_version(shell: Shell) -> None:
    """Every verb that opens it says so, those that would change it too."""
    assert shell.melodi("db", "upgrade").code == 0
    before = sql(shell, "UPDATE alembic_version SET version_num = '9999'")
    for words in (*READERS, ("db", "upgrade"), ("serve",)):
        ended = shell.melodi(*words, MELODI_API__LISTEN="127.0.0.1:0")
        assert ended.code == 1, words
        assert "newer" in ended.stderr
        assert "upgrade" in ended.stderr
        assert is_clear(ended.stderr)
    assert sql(shell) == before
