"""Moments as people write them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.api.moments import parse_moment
from melodi.store.queries import BadQuery

NOW = datetime(2026, 1, 8, tzinfo=UTC)


@given(
    moment=st.datetimes(
        min_value=datetime(1, 1, 3),  # noqa: DTZ001 - the strategy adds the zone
        max_value=datetime(9999, 12, 29),  # noqa: DTZ001
        timezones=st.just(UTC),
    )
)
def test_what_is_written_as_rfc_3339_is_read_as_it_was(moment: datetime) -> None:
    """A moment's own text gives the moment, with Z, with an offset, and with its plus sign lost."""
    text = moment.isoformat()
    for written in (text, text.replace("+00:00", "Z"), text.replace("+", " ")):
        assert parse_moment(written, now=NOW) == moment


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("0s", timedelta()),
        ("1500ms", timedelta(seconds=1.5)),
        ("90s", timedelta(seconds=90)),
        ("2m", timedelta(minutes=2)),
        ("1.5h", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        ("1w", timedelta(days=7)),
    ],
)
def test_a_duration_counts_back_from_now(text: str, ago: timedelta) -> None:
    """Every unit that durations are written in."""
    assert parse_moment(text, now=NOW) == NOW - ago


@pytest.mark.parametrize(
    "text", ["", "x", "7", "-1h", "1 h", "1y", "99999999999d", "2026-13-01T00:00:00Z", "nan"]
)
def test_anything_else_is_refused(text: str) -> None:
    """The error shows both ways to write a moment."""
    with pytest.raises(BadQuery, match=r"write 2026-11-21T08:00:00Z, or 1h or 7d"):
        parse_moment(text, now=NOW)


@pytest.mark.parametrize("text", ["2026-01-01", "2026-01-01T00:00:00"])
def test_a_moment_without_a_zone_is_refused(text: str) -> None:
    """Whose midnight it is must be said."""
    with pytest.raises(BadQuery, match="add Z for UTC"):
        parse_moment(text, now=NOW)
