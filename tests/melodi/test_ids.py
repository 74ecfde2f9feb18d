"""Ids are UUIDv7: unique, and sorted by the time a request began."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from melodi.ids import new_id

TIMES = st.integers(0, 2**47 * 1_000_000)


@given(TIMES)
def test_an_id_is_a_version_7_uuid_that_holds_its_millisecond(wall_ns: int) -> None:
    """RFC 9562, section 5.7."""
    value = uuid.UUID(new_id(wall_ns))
    assert value.version == 7
    assert value.variant == uuid.RFC_4122
    assert value.int >> 80 == wall_ns // 1_000_000


@given(TIMES, st.integers(1, 10**12))
def test_ids_sort_by_time_down_to_the_microsecond(wall_ns: int, later_ns: int) -> None:
    """Requests of one millisecond still sort."""
    if later_ns >= 1_000:
        assert new_id(wall_ns) < new_id(wall_ns + later_ns)


def test_two_requests_of_one_instant_have_two_ids() -> None:
    """The rest is random."""
    assert len({new_id(0) for _ in range(1_000)}) == 1_000
