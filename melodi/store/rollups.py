"""The roll-ups: one row per hour and kind of request, written with the records they count."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import numpy as np
import sqlalchemy as sa

from melodi.energy.record import EnergyRecord
from melodi.store import dialect
from melodi.store.measures import AMOUNTS, INPUTS, Tally, negated, tally, total
from melodi.store.queries import of_ids
from melodi.store.schema import requests, rollups

KEY = ("host", "hour", "backend", "model", "footprint", "origin", "quality", "policy")
SECONDS_PER_HOUR = 3600

_PUT = dialect.insert_or_replace(rollups, key=KEY)
_OF_REQUEST = tuple(name for name in KEY if name != "hour")

_KEY_OF = attrgetter("started_at", *_OF_REQUEST)
_INPUTS_OF = attrgetter(*INPUTS)

Key = tuple[Any, ...]
Values = Sequence[float | None]
"""A request's values of each of INPUTS."""


def hour_of(moment: datetime) -> int:
    """The hours since 1970 that had passed at `moment`."""
    return int(moment.timestamp() // SECONDS_PER_HOUR)


def begin_of_hour(hour: int) -> datetime:
    """The moment at which an hour since 1970 in UTC begins."""
    return datetime.fromtimestamp(hour * SECONDS_PER_HOUR, tz=UTC)


def count_records(
    connection: sa.Connection, accepted: Sequence[EnergyRecord], stored: Mapping[str, Any]
) -> None:
    """Add the final ones of `accepted` to their hours; call it before they are written.

    What is `stored` of the same ids as final, an older revision, is taken away first.
    """
    finals = [record for record in accepted if not record.provisional]
    if not finals:
        return
    older = [one.id for one in finals if one.id in stored and not stored[one.id].provisional]
    changes: dict[Key, list[Tally]] = defaultdict(list)
    for key, counted in tallies((_key_of(one), _INPUTS_OF(one)) for one in finals):
        changes[key].append(counted)
    for key, counted in tallies(_read(connection, older)):
        changes[key].append(negated(counted))
    _change(connection, changes)


def tallies(rows: Iterable[tuple[Key, Values]]) -> Iterator[tuple[Key, Tally]]:
    """The tally of the rows of each key, in order of appearance."""
    places: dict[Key, list[int]] = defaultdict(list)
    values = []
    for place, (key, inputs) in enumerate(rows):
        places[key].append(place)
        values.append(inputs)
    columns = np.array(values, dtype=np.float64).reshape(len(values), len(INPUTS)).T
    for key, where in places.items():
        yield key, tally(dict(zip(INPUTS, columns[:, where], strict=True)))


def _key_of(row: "EnergyRecord | sa.Row[Any]") -> Key:
    """What is unknown is an empty word: NULL is no part of a key."""
    started_at, host, *others = _KEY_OF(row)
    return (host, hour_of(started_at), *(word or "" for word in others))


def _read(connection: sa.Connection, ids: Sequence[str]) -> Iterator[tuple[Key, Values]]:
    columns = [requests.c[name] for name in (*_OF_REQUEST, "started_at", *INPUTS)]
    for these in of_ids(ids):
        for row in connection.execute(sa.select(*columns).where(these)):
            yield _key_of(row), _INPUTS_OF(row)


def _change(connection: sa.Connection, changes: Mapping[Key, list[Tally]]) -> None:
    rows = []
    for key, counted in changes.items():
        here = [rollups.c[name] == value for name, value in zip(KEY, key, strict=True)]
        amounts = sa.select(*(rollups.c[name] for name in AMOUNTS)).where(*here)
        old = connection.execute(amounts).mappings().one_or_none()
        new = total([dict(old), *counted] if old else counted)
        if new["count"]:
            rows.append(dict(zip(KEY, key, strict=True)) | new)
        else:
            connection.execute(sa.delete(rollups).where(*here))
    if rows:
        connection.execute(_PUT, rows)
