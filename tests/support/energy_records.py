"""Energy records for tests: plain ones, and any that could be."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_type_hints

from hypothesis import strategies as st

from melodi.clock import to_datetime
from melodi.energy.record import DomainEnergy, EnergyRecord, Quality, Status
from melodi.ids import new_id

START_NS = 1_767_225_600_000_000_000


def make_record(number: int = 0, **changes: Any) -> EnergyRecord:
    """A final record that began `number` seconds after the start of 2026."""
    wall_ns = START_NS + number * 1_000_000_000
    plain: dict[str, Any] = {
        "id": new_id(wall_ns),
        "host": "here",
        "backend": "ollama",
        "backend_kind": "ollama",
        "model": "tiny",
        "status": Status.OK,
        "started_at": to_datetime(wall_ns),
        "provisional": False,
        "quality": Quality.MEASURED,
        "energy_joules": float(number),
    }
    return EnergyRecord(**(plain | changes))


_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
"""What a record may hold: text from outside is cleaned before it comes into one."""
_seconds = st.floats(-1e15, 1e15)
"""Beyond that JSON on Postgres gives whole numbers back as integers."""
_moments = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]),
)
_counts = st.integers(min_value=0, max_value=2**31 - 1)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _seconds | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_words = st.lists(_text, max_size=3).map(tuple)
_strategies: dict[Any, st.SearchStrategy[Any]] = {
    str: _text,
    str | None: st.none() | _text,
    int: _counts,
    int | None: st.none() | _counts,
    bool: st.booleans(),
    bool | None: st.none() | st.booleans(),
    float | None: st.none() | _seconds,
    datetime: _moments,
    datetime | None: st.none() | _moments,
    Status: st.sampled_from(Status),
    Quality: st.sampled_from(Quality),
    tuple[str, ...]: _words,
    tuple[str, ...] | None: st.none() | _words,
    dict[str, str]: st.dictionaries(_text, _text, max_size=3),
    dict[str, float]: st.dictionaries(_text, _seconds, max_size=3),
    dict[str, object]: st.dictionaries(_text, _json, max_size=3),
}


def _any_of(shape: type, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(shape)
    rest = {name: _strategies[hint] for name, hint in hints.items() if name not in fixed}
    return st.fixed_dictionaries(rest | fixed).map(lambda values: shape(**values))


def any_records() -> st.SearchStrategy[EnergyRecord]:
    """Records with anything in every field, and an id of their own."""
    return _any_of(
        EnergyRecord,
        id=st.builds(lambda _: new_id(START_NS), st.integers()),
        seq=st.none(),
        domains=st.dictionaries(_text, _any_of(DomainEnergy), max_size=3),
    )
