"""The installation's key is made once, whole, and for its owner alone."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from melodi.daemon.installation import installation_key
from melodi.errors import StoreError


def test_the_key_is_made_once_and_kept(tmp_path: Path) -> None:
    """The folder too; nobody else may read it, and nothing is left beside it."""
    folder = tmp_path / "data" / "melodi"
    key = installation_key(folder)
    assert len(key) == 32
    assert installation_key(folder) == key
    assert [path.name for path in folder.iterdir()] == ["installation.key"]
    assert stat.S_IMODE((folder / "installation.key").stat().st_mode) == 0o600


def test_all_who_start_together_have_one_key(tmp_path: Path) -> None:
    """Whoever is first makes it; nobody sees a part of it."""
    for number in range(20):
        folder = tmp_path / str(number)
        with ThreadPoolExecutor(8) as pool:
            keys = set(pool.map(installation_key, [folder] * 8))
        assert len(keys) == 1
        assert len(keys.pop()) == 32


def test_a_key_that_appears_meanwhile_is_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking and making another process was quicker: its key stays."""
    path = tmp_path / "installation.key"
    link = os.link

    def slow(source: str, target: Path) -> None:
        path.write_bytes(b"k" * 32)
        link(source, target)

    monkeypatch.setattr(os, "link", slow)
    assert installation_key(tmp_path) == b"k" * 32
    assert [one.name for one in tmp_path.iterdir()] == ["installation.key"]


@pytest.mark.parametrize("content", [b"", b"half a key", b"k" * 33])
def test_a_damaged_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """It says how to get a good one, and overwrites nothing."""
    path = tmp_path / "installation.key"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="restore it from a backup, or delete it"):
        installation_key(tmp_path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    """As does a folder that is none."""
    (tmp_path / "installation.key").mkdir()
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(StoreError, match="make it yours to read and write"):
            installation_key(folder)
