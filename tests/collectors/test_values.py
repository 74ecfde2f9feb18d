"""What is made many times a second is a value like any other, and cheap."""

import os
from pathlib import Path

import pytest
from mypy import api

from collectors.base import Reading

ROOT = Path(__file__).parents[2]


def test_values_are_told_apart_by_their_fields() -> None:
    """Two that say the same are one in a set; none takes a field that it has not."""
    one, same, other = Reading("a", 1, 2), Reading("a", 1, 2), Reading("a", 1, 3)
    assert len({one, same, other}) == 2
    with pytest.raises(AttributeError):
        one.joules = 1  # type: ignore[attr-defined]


def test_nobody_may_change_a_value(tmp_path: Path) -> None:
    """Nothing stops it at run time, so the type checker must."""
    changing = tmp_path / "changing.py"
    changing.write_text("from collectors.base import Reading\n\nReading('a', 1, 2).at_ns = 3\n")
    words, _, _ = api.run([str(changing), f"--cache-dir={os.devnull}", "--follow-imports=silent"])
    assert 'Property "at_ns" defined in "Reading" is read-only' in words
