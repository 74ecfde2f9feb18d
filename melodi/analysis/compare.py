"""Compares what two models, hosts, campaigns or the like took, by their stored records."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from melodi.analysis.ratio import CONFIDENCE, METHOD, Comparison, compare_ratios
from melodi.energy.record import Quality
from melodi.store.measures import MEASURES, Measure, Values, are_known
from melodi.store.queries import BadQuery, RequestFilter, conditions, count_records, parse_tag
from melodi.store.schema import requests
from melodi.store.stats import IN_ROLLUPS, IN_ROWS, counts

BY = (*IN_ROLLUPS, *IN_ROWS)
"""What the two may differ in; beside these `tag:NAME`."""
_TAG = "tag:"
_ROWS_AT_ONCE = 10_000
_UNLIKE = ("footprint", "origin")
_METRICS = tuple(
    measure
    for measure in MEASURES
    if measure.name in ("joules_per_output_token", "joules_per_request", "joules_per_token")
)
_INPUTS = tuple(dict.fromkeys(name for one in _METRICS for name in one.top + one.bottom))


class _Key(NamedTuple):
    """Records of one side that may be put together."""

    value: str
    footprint: str | None
    origin: str | None
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareQuery:
    """Which records, and which two values of `by` are the sides."""

    by: str
    a: str
    b: str
    wanted: RequestFilter = field(default_factory=RequestFilter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One side: its value, and which of its records count."""

    value: str
    count: int
    qualities: Mapping[str, int]
    left_out: Mapping[str, int]
    """Records whose quality was not asked for, by quality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two sides with the same footprint and origin."""

    by: str
    footprint: str | None
    origin: str | None
    a: Party
    b: Party
    joules_per_output_token: Comparison
    joules_per_request: Comparison
    joules_per_token: Comparison
    estimated: bool
    """Some of the records are estimated, not measured."""
    confidence: float
    method: str


def read_comparison(connection: sa.Connection, query: CompareQuery) -> Compared:
    """The comparison of all final records that are wanted.

    Raises BadQuery where the two are the same, where one has no record that counts, and where
    their records differ in footprint or origin, with the filters that help.
    """
    groups = _groups(connection, query)
    counted = {key: one for key, one in groups.items() if counts(key.quality, query.wanted)}
    footprint, origin = _one_kind(counted, query)
    sides = {value: _party(value, groups, counted) for value in (query.a, query.b)}
    tables = [
        np.concatenate([one for key, one in counted.items() if key.value == value], axis=1)
        for value in sides
    ]
    return Compared(
        by=query.by,
        footprint=footprint,
        origin=origin,
        a=sides[query.a],
        b=sides[query.b],
        **{
            measure.name: compare_ratios(*(_known(measure, table) for table in tables))
            for measure in _METRICS
        },
        estimated=any(key.quality is Quality.ESTIMATED for key in counted),
        confidence=CONFIDENCE,
        method=METHOD,
    )


def rows_to_compare(connection: sa.Connection, query: CompareQuery, *, limit: int) -> int:
    """How many rows the comparison takes at most, counted up to `limit`."""
    return count_records(connection, query.wanted, limit=limit)


def _groups(connection: sa.Connection, query: CompareQuery) -> dict[_Key, Values]:
    """The columns of _INPUTS, of the records of each kind."""
    if query.a == query.b:
        raise BadQuery(f"{query.a!r} is compared with itself; name two that differ")
    value = _column(query.by)
    kind = (
        value.label("value"),
        *(requests.c[name] for name in ("footprint", "origin", "quality")),
    )
    statement = sa.select(*kind, *(requests.c[name] for name in _INPUTS)).where(
        requests.c.provisional.is_(False),
        value.in_([query.a, query.b]),
        *conditions(query.wanted),
    )
    rows = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(statement)
    parts: dict[_Key, list[Values]] = defaultdict(list)
    for some in rows.partitions():
        places: dict[tuple[Any, ...], list[Sequence[Any]]] = defaultdict(list)
        for row in some:
            places[tuple(row[:4])].append(row[4:])
        for (of, footprint, origin, quality), found in places.items():
            key = _Key(of, footprint, origin, Quality(quality))
            parts[key].append(np.array(found, dtype=np.float64).T)
    return {key: np.concatenate(some, axis=1) for key, some in parts.items()}


def _column(by: str) -> sa.ColumnElement[Any]:
    if by.startswith(_TAG):
        name, _ = parse_tag(by.removeprefix(_TAG) + "=")
        tag: sa.ColumnElement[Any] = requests.c.tags[name].as_string()
        return tag
    if by not in BY:
        raise BadQuery(
            f"there is nothing to compare by called {by!r}; choose from {', '.join(BY)}, tag:NAME"
        )
    return requests.c[by]


def _one_kind(counted: Mapping[_Key, Values], query: CompareQuery) -> tuple[Any, Any]:
    """The footprint and the origin that all have in common."""
    for value in (query.a, query.b):
        if not any(key.value == value for key in counted):
            raise BadQuery(
                f"there is no record with {query.by} {value!r} that counts; "
                "see what there is by /v1/stats or melodi stats, or ask for another quality"
            )
    for name in _UNLIKE:
        found = {value: _by(counted, name, value) for value in (query.a, query.b)}
        if len({kind for kinds in found.values() for kind in kinds}) > 1:
            raise BadQuery(_unlike(name, found))
    first = next(iter(counted))
    return first.footprint, first.origin


def _by(counted: Mapping[_Key, Values], name: str, value: str) -> dict[str | None, int]:
    """How many records of a side have each footprint, or origin."""
    found: dict[str | None, int] = defaultdict(int)
    for key, columns in counted.items():
        if key.value == value:
            found[getattr(key, name)] += columns.shape[1]
    return found


def _unlike(name: str, found: Mapping[str, Mapping[str | None, int]]) -> str:
    told = "; ".join(
        f"{value!r} has " + ", ".join(f"{kind or 'none'} ({n})" for kind, n in kinds.items())
        for value, kinds in found.items()
    )
    first, second = (set(kinds) for kinds in found.values())
    common = sorted(kind for kind in first & second if kind)
    remedy = (
        "add " + " or ".join(f"{name}={kind}" for kind in common)
        if common
        else f"they have no {name} in common: measure them alike first"
    )
    return f"records of unlike {name} cannot be compared: {told}; {remedy}"


def _party(value: str, groups: Mapping[_Key, Values], counted: Mapping[_Key, Values]) -> Party:
    tallies: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for key in sorted(groups, key=lambda one: one.quality):
        if key.value == value:
            into = tallies[key not in counted]
            quality = key.quality.value
            into[quality] = into.get(quality, 0) + groups[key].shape[1]
    return Party(
        value=value, count=sum(tallies[0].values()), qualities=tallies[0], left_out=tallies[1]
    )


def _known(measure: Measure, table: Values) -> tuple[Values, Values]:
    """Joules and what they bought, of the records of which both are known."""
    columns = dict(zip(_INPUTS, table, strict=True))
    joules, bought = measure.parts(columns)
    known = are_known(joules, bought)
    return joules[known], bought[known]
