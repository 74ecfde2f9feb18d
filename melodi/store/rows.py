"""Between an energy record and its row."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from melodi.energy.record import DomainEnergy, EnergyRecord, Quality, Status
from melodi.store import dialect
from melodi.store.schema import requests

_NAMES = tuple(f.name for f in fields(EnergyRecord))
_VALUES_OF = attrgetter(*_NAMES)
_PUT = dialect.insert_or_replace(requests, key=["id"])
_COMBINATIONS_KEPT = 100
_MOST_PARAMETERS = 999
"""That any SQLite takes in one statement."""
_PORTIONS = (24, 16, 8, 4, 2, 1)

_Convert = Callable[[Any], Any]


def put_records(
    connection: sa.Connection, records: Sequence[EnergyRecord], seqs: Mapping[str, int]
) -> None:
    """Write the records' rows over those of the same ids, with the seqs of those that have one.

    A column that is unknown in all of them is left out, which an INSERT takes for NULL: it costs
    the database's driver as much as one that is known. Values are converted column by column, by
    the columns' own types: row by row, as statements do it, takes three times as long.
    """
    columns = dict(zip(_NAMES, zip(*map(_VALUES_OF, records), strict=True), strict=True))
    columns["seq"] = tuple(seqs.get(record.id) for record in records)
    known = {name: column for name, column in columns.items() if not _is_unknown(column)}
    statement, order, converts = _prepared(connection.dialect, tuple(known))
    converted = [
        known[name] if convert is None else [convert(value) for value in known[name]]
        for name, convert in zip(order or known, converts, strict=True)
    ]
    rows = list(zip(*converted, strict=True))
    if order is None:
        connection.exec_driver_sql(statement, [dict(zip(known, row, strict=True)) for row in rows])
        return
    # SQLite's driver lets go of the interpreter for each statement, and has to get it back.
    start = 0
    for count in _portions(len(rows), most=max(1, _MOST_PARAMETERS // len(order))):
        some = chain(*rows[start : start + count])
        connection.exec_driver_sql(_of_rows(statement, count), tuple(some))
        start += count


def _portions(rows: int, *, most: int) -> Iterator[int]:
    """So many rows in portions of few sizes, for each of which a statement is kept prepared."""
    sizes = (most, *(one for one in _PORTIONS if one < most))
    while rows:
        size = next(one for one in sizes if one <= rows)
        yield size
        rows -= size


@lru_cache(_COMBINATIONS_KEPT)
def _of_rows(statement: str, count: int) -> str:
    """The INSERT of one row as that of so many."""
    before, values, after = re.split(r"(?<= VALUES )(\([?, ]+\))", statement, maxsplit=1)
    return before + ", ".join([values] * count) + after


def _is_unknown(column: Sequence[object]) -> bool:
    return column[0] is None and column.count(None) == len(column)


@lru_cache(_COMBINATIONS_KEPT)
def _prepared(
    database: sa.Dialect, names: tuple[str, ...]
) -> tuple[str, Sequence[str] | None, Sequence[_Convert | None]]:
    """The statement for these columns, their order where its parameters have no names, and what
    makes of a value what the driver takes; None: it takes it as it is."""
    compiled = _PUT.compile(dialect=database, column_keys=list(names))
    order = compiled.positiontup
    return compiled.string, order, list(_converts(database, order or names))


def _converts(database: sa.Dialect, names: Sequence[str]) -> Iterator[_Convert | None]:
    for name in names:
        yield requests.c[name].type.dialect_impl(database).bind_processor(database)


def to_record(row: sa.RowMapping) -> EnergyRecord:
    """The record that was stored as this row of `requests`."""
    throttled = row["throttle_reasons"]
    return EnergyRecord(
        **{
            **row,
            "status": Status(row["status"]),
            "quality": Quality(row["quality"]),
            "quality_reasons": tuple(row["quality_reasons"]),
            "throttle_reasons": None if throttled is None else tuple(throttled),
            "domains": {name: _to_domain(value) for name, value in row["domains"].items()},
        }
    )


def _to_domain(value: Mapping[str, Any]) -> DomainEnergy:
    return DomainEnergy(
        **{**value, "quality": Quality(value["quality"]), "reasons": tuple(value["reasons"])}
    )
