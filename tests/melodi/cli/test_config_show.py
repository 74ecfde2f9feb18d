"""`melodi config show` shows what it may, also of settings that cannot be used."""

import json

import pytest
from command import Shell, is_clear


@pytest.mark.parametrize("url", ["me:secret", "postgresql://me:secret@db:port/melodi", ""])
def test_a_database_url_that_cannot_be_understood_is_hidden(shell: Shell, url: str) -> None:
    """It may hold a password anywhere; the value says how one is written."""
    ended = shell.melodi("config", "show", "--json", MELODI_DATABASE__URL=url)
    assert ended.code == 0, ended.stderr
    rows = {one["setting"]: one for one in json.loads(ended.stdout)}
    assert "write it like sqlite:////path/to/melodi.db" in rows["database.url"]["value"]
    assert "secret" not in ended.stdout + ended.stderr
    used = shell.melodi("requests", MELODI_DATABASE__URL=url)
    assert used.code != 0
    assert is_clear(used.stderr)
    assert "secret" not in used.stderr
