"""Columns of numbers come back as they were, and even ones take few bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.store.packing import pack, unpack

NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30)


@given(st.dictionaries(st.text(st.characters(codec="ascii")), NUMBERS, max_size=4))
def test_columns_come_back_as_they_were(columns: dict[str, list[int]]) -> None:
    """Any numbers of 64 bits, however far apart, with what is told about them."""
    packed = pack({"a": [1, None]}, {k: np.array(v, dtype=np.int64) for k, v in columns.items()})
    about, found = unpack(packed)
    assert about == {"a": [1, None]}
    assert {name: column.tolist() for name, column in found.items()} == columns


def test_what_grows_evenly_takes_next_to_nothing() -> None:
    """Ten thousand moments a tenth of a second apart fit into 200 bytes."""
    moments = np.arange(10_000, dtype=np.int64) * 100_000_000 + 123_456_789_012
    assert len(pack({}, {"at_ns": moments})) < 200


@pytest.mark.parametrize("data", [b"", b"no", pack({}, {})[:-3]])
def test_other_bytes_are_refused(data: bytes) -> None:
    """What was not packed is a ValueError, not a wrong column."""
    with pytest.raises(ValueError, match="not packed columns"):
        unpack(data)
