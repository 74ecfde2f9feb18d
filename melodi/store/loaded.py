"""Which models were loaded on which device, and what the ledger says by model."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from melodi.clock import begin_of_minute
from melodi.store import dialect
from melodi.store.books import LedgerLine, first_minute, read_ledger, within
from melodi.store.schema import ledger_minutes, loaded_minutes, requests

VRAM, EQUAL = "vram", "equal"
NOBODY = ""
"""The backend and the model of a row that tells for how long anybody looked."""
_BY_REQUEST = ("active_joules", "idle_share_joules", "load_joules")
_OF_A_MODEL = (*_BY_REQUEST, "idle_joules")
_NOTHING: dict[str, Any] = dict.fromkeys(
    (
        *("foreign_joules", "unattributed_joules", "tail_joules"),
        *("unmeasured_seconds", "residual_joules"),
    ),
    0.0,
)
"""What is of no model."""

_IS_MODEL = loaded_minutes.c.model != NOBODY
_ADD = dialect.insert_or_add(loaded_minutes, key=["host", "domain", "minute", "backend", "model"])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedMinute:
    """For how much of a minute a model was loaded on a device."""

    domain: str
    minute: int
    """Minutes since 1970 in UTC."""
    backend: str = NOBODY
    model: str = NOBODY
    seconds: float
    vram_byte_seconds: float | None = None
    """Memory of the device that it took, times how long; None: not told."""


def keep_loaded(connection: sa.Connection, host: str, minutes: Iterable[LoadedMinute]) -> None:
    """Add to what is known of these minutes."""
    rows = [{"host": host} | asdict(one) for one in minutes]
    if rows:
        connection.execute(_ADD, rows)


def read_model_ledger(
    connection: sa.Connection, *, since: datetime | None, until: datetime | None
) -> tuple[LedgerLine, ...]:
    """The accounts of each domain by model; together they are those of the domain.

    Active energy, idle share and load are divided as the records of the requests that began in
    the time have them. The idle joules of a GPU go to the models that were loaded on it, by the
    memory that each took: an estimate, for the device idles as one. What is of no model, such as
    idling with nothing loaded, has the model None.
    """
    lines: list[LedgerLine] = []
    floors = _floors(connection, since=since, until=until)
    for whole in read_ledger(connection, since=since, until=until, by="domain"):
        place = (whole.host, whole.domain)
        records = _of_records(connection, whole, since=since, until=until)
        lines += _by_model(whole, records, floors.get(place, {}))
    return tuple(lines)


def _by_model(
    whole: LedgerLine,
    records: Mapping[str, Mapping[str, float]],
    floors: Mapping[str, tuple[float, str]],
) -> list[LedgerLine]:
    """A line for each model, and one for what is left."""
    sums = {name: sum(one[name] for one in records.values()) for name in _BY_REQUEST}
    left = {name: getattr(whole, name) for name in _OF_A_MODEL}
    lines = []
    for model in sorted(records.keys() | floors.keys()):
        floor, split = floors.get(model, (0.0, None))
        joules: dict[str, Any] = {
            name: getattr(whole, name) * records[model][name] / sums[name]
            if model in records and sums[name]
            else 0.0
            for name in _BY_REQUEST
        } | {"idle_joules": floor}
        left = {name: left[name] - joules[name] for name in _OF_A_MODEL}
        lines.append(
            replace(
                whole,
                model=model,
                split=split,
                measured_joules=sum(joules.values()),
                **joules,
                **_NOTHING,
            )
        )
    measured = whole.measured_joules - sum(one.measured_joules for one in lines)
    return [*lines, replace(whole, measured_joules=measured, **left)]


def _of_records(
    connection: sa.Connection,
    whole: LedgerLine,
    *,
    since: datetime | None,
    until: datetime | None,
) -> dict[str, dict[str, float]]:
    """What the records of each model hold of a domain; those of no known model are left out."""

    def of(name: str) -> sa.ColumnElement[float]:
        amount: sa.ColumnElement[float] = requests.c.domains[whole.domain, name].as_float()
        return amount

    # Where idle is unknown there is only their sum, and the books have it as active.
    columns = {
        "active_joules": sa.func.coalesce(of("active_joules"), of("joules")),
        "idle_share_joules": of("idle_share_joules"),
        "load_joules": of("load_joules"),
    }
    statement = sa.select(
        requests.c.model,
        *(sa.func.coalesce(sa.func.sum(one), 0.0).label(name) for name, one in columns.items()),
    ).where(requests.c.host == whole.host, requests.c.model.is_not(None))
    if since is not None:
        statement = statement.where(requests.c.started_at >= _begin(since))
    if until is not None:
        statement = statement.where(requests.c.started_at < _begin(until))
    rows = connection.execute(statement.group_by(requests.c.model)).mappings()
    return {row["model"]: {name: row[name] for name in columns} for row in rows}


def _floors(
    connection: sa.Connection, *, since: datetime | None, until: datetime | None
) -> dict[tuple[str, str], dict[str, tuple[float, str]]]:
    """The idle joules of each model by host and domain, and how they were split.

    Of a minute's idle joules that part of the time counts in which something was loaded.
    """
    minutes = _minutes(since=since, until=until)
    loaded, book, one = loaded_minutes.c, ledger_minutes.c, minutes.c
    is_equal = (one.sized < one.models) & (one.models > 1)
    share = sa.case(
        (one.seconds <= 0, 0.0),
        (one.sized < one.models, loaded.seconds / one.seconds),
        (one.bytes > 0, loaded.vram_byte_seconds / one.bytes),
        else_=0.0,
    )
    fraction = sa.case((one.loaded < one.watched, one.loaded / one.watched), else_=1.0)
    place = (loaded.host, loaded.domain, loaded.minute)
    keys = (loaded.host, loaded.domain, loaded.model)
    statement = (
        sa.select(
            *keys,
            sa.func.sum(book.idle_joules * fraction * share).label("joules"),
            _total(1, is_equal).label("equal"),
        )
        .join_from(
            loaded_minutes,
            minutes,
            sa.and_(*(column == one[column.name] for column in place)),
        )
        .join(ledger_minutes, sa.and_(*(column == book[column.name] for column in place)))
        .where(_IS_MODEL, one.watched > 0)
        .group_by(*keys)
    )
    found: dict[tuple[str, str], dict[str, tuple[float, str]]] = defaultdict(dict)
    for row in connection.execute(statement):
        found[row.host, row.domain][row.model] = (row.joules, EQUAL if row.equal else VRAM)
    return found


def _minutes(*, since: datetime | None, until: datetime | None) -> sa.Subquery:
    """For how long anybody looked and anything was loaded in each minute of a device.

    And over its models: how many there were, of how many the memory is known, seconds and bytes.
    """
    loaded = loaded_minutes.c
    place = (loaded.host, loaded.domain, loaded.minute)
    return (
        sa.select(
            *place,
            sa.func.max(sa.case((~_IS_MODEL, loaded.seconds), else_=0.0)).label("watched"),
            sa.func.max(sa.case((_IS_MODEL, loaded.seconds), else_=0.0)).label("loaded"),
            _total(loaded.seconds, _IS_MODEL).label("seconds"),
            _total(loaded.vram_byte_seconds, _IS_MODEL).label("bytes"),
            _total(1, _IS_MODEL).label("models"),
            _total(1, _IS_MODEL & loaded.vram_byte_seconds.is_not(None)).label("sized"),
        )
        .where(*within(loaded.minute, since=since, until=until))
        .group_by(*place)
        .subquery()
    )


def _total(what: Any, where: sa.ColumnElement[bool]) -> sa.ColumnElement[float]:
    return sa.func.sum(sa.case((where, what), else_=0.0))


def _begin(moment: datetime) -> datetime:
    """When the first minute begins that is counted."""
    return begin_of_minute(first_minute(moment))
