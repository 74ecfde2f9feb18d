"""Statistics over stored records: from the roll-ups, and from rows where these cannot tell."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from melodi.energy.record import Quality
from melodi.spelling import did_you_mean
from melodi.store.figures import Group, Rates, group_of
from melodi.store.measures import AMOUNTS, INPUTS, Tally, total
from melodi.store.queries import BadQuery, RequestFilter, conditions
from melodi.store.rollups import SECONDS_PER_HOUR, Key, Values, begin_of_hour, hour_of, tallies
from melodi.store.schema import requests, rollups

IN_ROLLUPS = ("host", "backend", "model", "policy")
"""What may be asked for `by`, and is answered from roll-ups."""
IN_ROWS = ("campaign", "task", "status")
"""What may be asked for `by`, and takes reading every row."""
LEFT_OUT = (Quality.SUB_SENSOR, Quality.GAP, Quality.NONE)
"""Qualities that do not count unless they are asked for."""
MOST_BUCKETS = 10_000

_ROWS_AT_ONCE = 10_000
_FILTERS_IN_ROLLUPS = ("host", "backend", "model", "quality", "footprint", "origin")
_ALWAYS = ("footprint", "origin")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsQuery:
    """Which records, and by what they are put together."""

    wanted: RequestFilter = field(default_factory=RequestFilter)
    by: tuple[str, ...] = ()
    step_seconds: int | None = None
    """Length of a bucket of time; None: no buckets."""

    @property
    def keys(self) -> tuple[str, ...]:
        """What a group has in common; its quality decides whether it counts."""
        return tuple(dict.fromkeys((*self.by, *_ALWAYS, "quality")))


_Hours = tuple[int | None, int | None]


class _Plan(NamedTuple):
    hours: _Hours | None
    """From which hour on and before which roll-ups are read; None: not at all."""
    rows: tuple[RequestFilter, ...]


def parse_by(text: str) -> tuple[str, ...]:
    """`model,backend` as names; BadQuery for one that is not known."""
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for name in names:
        if name not in (*IN_ROLLUPS, *IN_ROWS):
            known = ", ".join((*IN_ROLLUPS, *IN_ROWS))
            hint = did_you_mean(name, (*IN_ROLLUPS, *IN_ROWS))
            raise BadQuery(f"there is nothing to group by called {name!r}{hint}: use {known}")
    return names


def read_stats(connection: sa.Connection, query: StatsQuery, *, rates: Rates) -> list[Group]:
    """The groups of all final records that are wanted, in the order of their keys."""
    _check(query)
    found: dict[Key, list[Tally]] = defaultdict(list)
    plan = _plan(query)
    for key, counted in _from_rollups(connection, query, plan):
        found[key].append(counted)
    for wanted in plan.rows:
        for key, counted in _from_rows(connection, query, wanted):
            found[key].append(counted)
    return list(_groups(query, {key: total(parts) for key, parts in found.items()}, rates))


def rows_to_read(connection: sa.Connection, query: StatsQuery, *, limit: int) -> int:
    """How many rows the answer takes, of requests and of roll-ups, counted up to `limit` each."""
    _check(query)
    plan = _plan(query)
    asked = [sa.select(requests.c.id).where(*_final(wanted)) for wanted in plan.rows]
    if plan.hours is not None:
        asked.append(sa.select(rollups.c.hour).where(*_in_rollups(query, plan.hours)))
    counts = (sa.select(sa.func.count()).select_from(one.limit(limit).subquery()) for one in asked)
    return sum(connection.execute(count).scalar_one() for count in counts)


def _check(query: StatsQuery) -> None:
    step, wanted = query.step_seconds, query.wanted
    if step is None or wanted.since is None or wanted.until is None:
        return
    if (wanted.until - wanted.since).total_seconds() / step > MOST_BUCKETS:
        raise BadQuery(f"that would be more than {MOST_BUCKETS} buckets; take a longer step")


def _plan(query: StatsQuery) -> _Plan:
    """Roll-ups for whole hours, rows for the ragged ends; rows alone where roll-ups cannot tell."""
    wanted, step = query.wanted, query.step_seconds
    unknown_to_rollups = replace(wanted, since=None, until=None) != RequestFilter(
        **{name: getattr(wanted, name) for name in _FILTERS_IN_ROLLUPS}
    )
    if unknown_to_rollups or set(query.by) & set(IN_ROWS) or (step and step % SECONDS_PER_HOUR):
        return _Plan(None, (wanted,))
    first = None if wanted.since is None else -((-_whole_seconds(wanted.since)) // SECONDS_PER_HOUR)
    last = None if wanted.until is None else hour_of(wanted.until)
    if first is not None and last is not None and first >= last:
        return _Plan(None, (wanted,))
    ends = []
    if first is not None and begin_of_hour(first) != wanted.since:
        ends.append(replace(wanted, until=begin_of_hour(first)))
    if last is not None and begin_of_hour(last) != wanted.until:
        ends.append(replace(wanted, since=begin_of_hour(last)))
    return _Plan((first, last), tuple(ends))


def _from_rollups(
    connection: sa.Connection, query: StatsQuery, plan: _Plan
) -> Iterator[tuple[Key, Tally]]:
    if plan.hours is None:
        return
    names = (*query.keys, "hour", *AMOUNTS)
    columns = (rollups.c[name] for name in names)
    statement = sa.select(*columns).where(*_in_rollups(query, plan.hours))
    for row in connection.execute(statement).mappings():
        bucket = _bucket(row["hour"] * SECONDS_PER_HOUR, query.step_seconds)
        yield (
            (bucket, *(row[name] or None for name in query.keys)),
            {name: row[name] for name in AMOUNTS},
        )


def _in_rollups(query: StatsQuery, hours: _Hours) -> Iterator[sa.ColumnElement[bool]]:
    first, last = hours
    for name in _FILTERS_IN_ROLLUPS:
        if (value := getattr(query.wanted, name)) is not None:
            yield rollups.c[name] == value
    if first is not None:
        yield rollups.c.hour >= first
    if last is not None:
        yield rollups.c.hour < last


def _from_rows(
    connection: sa.Connection, query: StatsQuery, wanted: RequestFilter
) -> Iterator[tuple[Key, Tally]]:
    def keyed(row: sa.RowMapping) -> tuple[Key, Values]:
        bucket = _bucket(row["started_at"].timestamp(), query.step_seconds)
        key = (bucket, *(row[name] or None for name in query.keys))
        return key, [row[name] for name in INPUTS]

    names = tuple(dict.fromkeys((*query.keys, "started_at", *INPUTS)))
    statement = sa.select(*(requests.c[name] for name in names)).where(*_final(wanted))
    rows = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(statement).mappings()
    for some in rows.partitions():
        yield from tallies(map(keyed, some))


def _final(wanted: RequestFilter) -> Iterator[sa.ColumnElement[bool]]:
    yield requests.c.provisional.is_(False)
    yield from conditions(wanted)


def _groups(query: StatsQuery, found: Mapping[Key, Tally], rates: Rates) -> Iterator[Group]:
    """Those that differ in quality only are one group."""
    groups: dict[Key, dict[Quality, Tally]] = defaultdict(dict)
    for key, counted in found.items():
        groups[key[:-1]][Quality(str(key[-1]))] = counted
    for key in sorted(groups, key=_order):
        bucket, *words = key
        common = dict(zip(query.keys, words, strict=False))
        asked = {q: one for q, one in groups[key].items() if counts(q, query.wanted)}
        others = {q: one["count"] for q, one in groups[key].items() if q not in asked}
        yield group_of(
            asked,
            others,
            rates=rates,
            by={name: common[name] for name in query.by},
            started_at=None if bucket is None else datetime.fromtimestamp(bucket, tz=UTC),
            footprint=common["footprint"],
            origin=common["origin"],
        )


def _order(key: Key) -> tuple[Any, ...]:
    bucket, *words = key
    return (bucket or 0, *(word or "" for word in words))


def counts(quality: Quality, wanted: RequestFilter) -> bool:
    """Whether records of that quality are put into figures."""
    return quality == wanted.quality if wanted.quality else quality not in LEFT_OUT


def _bucket(seconds: float, step_seconds: int | None) -> int | None:
    return None if step_seconds is None else int(seconds // step_seconds) * step_seconds


def _whole_seconds(moment: datetime) -> int:
    """Seconds since 1970, the last begun one counted whole."""
    return int(-(-moment.timestamp() // 1))
