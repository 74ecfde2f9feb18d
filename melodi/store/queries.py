"""Which records are asked for, and where a page of them ends."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from melodi.energy.record import EnergyRecord, Quality, Status
from melodi.errors import StoreError
from melodi.store.schema import requests

_EQUAL = (
    *("host", "backend", "model", "campaign", "task", "status", "quality"),
    *("footprint", "origin"),
)
_IDS_AT_ONCE = 1 << 9


class BadQuery(StoreError):
    """A filter or a cursor that cannot be understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """What a record must be to be given; None asks nothing."""

    host: str | None = None
    backend: str | None = None
    model: str | None = None
    campaign: str | None = None
    task: str | None = None
    status: Status | None = None
    quality: Quality | None = None
    footprint: str | None = None
    origin: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    """All of these must be there."""
    since: datetime | None = None
    until: datetime | None = None
    """Started at or after `since` and before `until`."""
    min_energy_joules: float | None = None
    max_energy_joules: float | None = None
    """Both inclusive; a record of unknown energy fulfils neither."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, newest first, and the cursor of the next ones; None: that is all."""

    items: tuple[EnergyRecord, ...]
    next_cursor: str | None


def of_ids(ids: Sequence[str]) -> Iterator[sa.ColumnElement[bool]]:
    """Conditions that find the requests of these ids, some each, in statements of few lengths.

    A driver keeps each length prepared, so each asks for a power of two, the last id again and
    again where there are fewer.
    """
    for start in range(0, len(ids), _IDS_AT_ONCE):
        some = list(ids[start : start + _IDS_AT_ONCE])
        length = 1 << (len(some) - 1).bit_length()
        yield requests.c.id.in_(some + some[-1:] * (length - len(some)))


def parse_tag(text: str) -> tuple[str, str]:
    """`k=v` or `k:v`, cut at the first sign; BadQuery where there is none."""
    cuts = [text.index(sign) for sign in "=:" if sign in text]
    if not cuts or min(cuts) == 0:
        raise BadQuery(f"{text!r} is not a tag; write name=value or name:value")
    cut = min(cuts)
    name = text[:cut]
    # No database's JSON paths can quote them alike.
    if set(name) & set('"\\'):
        raise BadQuery(f"the tag name {name!r} cannot be looked for; leave quotes and \\ out")
    return name, text[cut + 1 :]


def encode_cursor(record: EnergyRecord) -> str:
    """An opaque word for the place after `record`."""
    return base64.urlsafe_b64encode(
        f"{record.started_at.isoformat()} {record.id}".encode()
    ).decode()


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """The start and the id behind a cursor; BadQuery where it is none of ours."""
    try:
        started_at, _, id_ = base64.urlsafe_b64decode(cursor).decode().partition(" ")
        moment = datetime.fromisoformat(started_at)
    except (binascii.Error, ValueError) as error:
        raise BadQuery("the cursor is damaged; start again without one") from error
    if moment.tzinfo is None:
        raise BadQuery("the cursor is damaged; start again without one")
    return moment, id_


def select_page(
    wanted: RequestFilter, *, cursor: str | None, limit: int
) -> sa.Select[tuple[object]]:
    """The statement for `limit` records after `cursor`, newest first by (started_at, id)."""
    place = (requests.c.started_at, requests.c.id)
    statement = sa.select(requests).where(*conditions(wanted))
    if cursor is not None:
        # Inside a tuple a value does not take on the type of the column it is compared with.
        last = zip(place, decode_cursor(cursor), strict=True)
        after = sa.tuple_(*(sa.literal(value, column.type) for column, value in last))
        statement = statement.where(sa.tuple_(*place) < after)
    return statement.order_by(*(column.desc() for column in place)).limit(limit)


def count_records(connection: sa.Connection, wanted: RequestFilter, *, limit: int) -> int:
    """How many records are wanted, counted up to `limit`."""
    some = sa.select(requests.c.id).where(*conditions(wanted)).limit(limit).subquery()
    return connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()


def conditions(wanted: RequestFilter) -> Iterator[sa.ColumnElement[bool]]:
    """What the rows of `requests` must fulfil."""
    column = requests.c
    for name in _EQUAL:
        if (value := getattr(wanted, name)) is not None:
            yield column[name] == value
    for name, value in wanted.tags:
        yield column.tags[name].as_string() == value
    if wanted.since is not None:
        yield column.started_at >= wanted.since
    if wanted.until is not None:
        yield column.started_at < wanted.until
    if wanted.min_energy_joules is not None:
        yield column.energy_joules >= wanted.min_energy_joules
    if wanted.max_energy_joules is not None:
        yield column.energy_joules <= wanted.max_energy_joules
