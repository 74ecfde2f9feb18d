"""Divides the joules of stored records anew by another policy, and keeps the books right."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import sqlalchemy as sa

from melodi.analysis.rebooking import (
    Revision,
    changes,
    followed,
    leave_to_others,
    whole_minutes,
    widened,
)
from melodi.analysis.replay import Replay, Stay, replay
from melodi.clock import begin_of_minute, minute_of
from melodi.energy.policies import policies_for
from melodi.energy.record import EnergyRecord
from melodi.energy.total import RequestEnergy, charged
from melodi.errors import StoreError
from melodi.store.books import read_minutes
from melodi.store.kept import read_kept
from melodi.store.queries import RequestFilter, count_records
from melodi.store.records import Batch, read_some

LEAD_MINUTES = 10
"""Policies learn for so long before the first joule that counts."""
LAG_MINUTES = 60
"""A request is kept as it ends, with its begin: looked for so long after the last joule."""
WIDEN_MINUTES = 10
FOLLOW_MINUTES = 10
"""Requests that began in what is divided anew are followed for so long beyond it."""
BEYOND_MINUTES = max(WIDEN_MINUTES, FOLLOW_MINUTES)
MOST_RECORDS = 300_000
OF_THE_DAEMON = frozenset({"daemon_stopped", "not_stored"})
"""Reasons that hold no longer once all bins of a request have been divided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputing:
    """Which records of one host are divided anew, and how."""

    host: str
    policy: str
    first_minute: int
    last_minute: int
    """In minutes since 1970 in UTC, both included."""
    backend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revised:
    """What is to change."""

    revisions: tuple[Revision, ...]
    left: int
    """Measured records that were asked for and stay: what they were in is not all kept."""
    batch: Batch
    """To be given to `RecordStore.revise`."""


def recompute(connection: sa.Connection, asked: Recomputing) -> Revised:
    """What records and accounts become if the books are kept by `asked.policy`.

    A minute is divided anew if everything that was booked in it is kept, and a record if all its
    minutes are. To cut nobody in two, up to ten minutes more on each side are divided anew, as
    far as somebody ran there, or else those that the requests ran in which began in the others.
    Whoever is cut all the same keeps record and joules. `connection`
    must see one state of the database throughout. Raises StoreError where there are too many,
    ValueError for an unknown policy.
    """
    policies = partial(policies_for, asked.policy)
    policies()
    parts = read_kept(
        connection,
        asked.host,
        first_minute=asked.first_minute - WIDEN_MINUTES - LEAD_MINUTES,
        last_minute=asked.last_minute + BEYOND_MINUTES + LAG_MINUTES,
    )
    anew = replay(parts, policies)
    first, last = _known(asked, anew)
    booked = read_minutes(connection, asked.host, first=first, last=last)
    again = {key: one for key, one in anew.minutes.items() if first <= key[1] <= last}
    whole = whole_minutes(booked, again, first=first, last=last)
    minutes = _minutes(
        max(asked.first_minute, first), min(asked.last_minute, last), anew.stays.values(), whole
    )
    records = _records(connection, asked, anew, minutes)
    revisions = tuple(
        Revision(one, _revised(one, anew.energies[one.id]))
        for one in records.values()
        if _is_divided(one, anew, minutes) and asked.backend in (None, one.backend)
    )
    divided = {one.before.id for one in revisions}
    others = [one for id_, one in records.items() if id_ not in divided]
    changed = changes(booked, again, minutes) if revisions else {}
    if any(one.domains for one in others):
        leave_to_others(changed, booked, again, revisions)
    return Revised(
        revisions=revisions,
        left=sum(_is_asked(one, asked) for one in others),
        batch=Batch(
            host=asked.host,
            records=tuple(one.after for one in revisions),
            minutes=tuple(changed.values()),
        ),
    )


def _known(asked: Recomputing, anew: Replay) -> tuple[int, int]:
    """The first and the last minute that may be divided anew, as far as they are kept."""
    known = [minute for _, minute in anew.minutes]
    first = max(asked.first_minute - WIDEN_MINUTES, min(known, default=asked.first_minute))
    last = min(asked.last_minute + BEYOND_MINUTES, max(known, default=asked.first_minute))
    return first, last


def _minutes(first: int, last: int, stays: Collection[Stay], whole: set[int]) -> set[int]:
    """Those that are divided anew: the `whole` ones asked for, and as many more as cut nobody."""
    begin, end = widened(first, last, stays, whole, most=WIDEN_MINUTES)
    minutes = {minute for minute in whole if begin <= minute <= end}
    return minutes | followed(minutes, stays, whole, most=FOLLOW_MINUTES)


def _records(
    connection: sa.Connection, asked: Recomputing, anew: Replay, minutes: set[int]
) -> Mapping[str, EnergyRecord]:
    """All that was asked for, and all that has joules in the `minutes`, by id."""
    first = min({asked.first_minute} | minutes)
    last = max({asked.last_minute} | minutes)
    begun = RequestFilter(
        host=asked.host, since=begin_of_minute(first), until=begin_of_minute(last + 1)
    )
    if count_records(connection, begun, limit=MOST_RECORDS + 1) > MOST_RECORDS:
        raise StoreError(
            f"more than {MOST_RECORDS} records cannot be divided anew at once; "
            "choose a shorter stretch by --since and --until"
        )
    ids = [id_ for id_, one in anew.stays.items() if minutes & set(range(one.first, one.last + 1))]
    return {one.id: one for one in read_some(connection, begun, ids=ids)}


def _is_divided(record: EnergyRecord, anew: Replay, minutes: set[int]) -> bool:
    """Whether all of the record's joules are in the `minutes`, and no more are to come."""
    stay = anew.stays.get(record.id)
    return (
        not record.provisional
        and stay is not None
        and stay.whole
        and minutes.issuperset(range(stay.first, stay.last + 1))
    )


def _is_asked(record: EnergyRecord, asked: Recomputing) -> bool:
    minute = minute_of(record.started_at)
    return (
        record.footprint is not None
        and asked.first_minute <= minute <= asked.last_minute
        and asked.backend in (None, record.backend)
    )


def _revised(record: EnergyRecord, energy: RequestEnergy) -> EnergyRecord:
    """The next revision; reasons that others than the books gave stay."""
    booked = {reason for one in record.domains.values() for reason in one.reasons}
    others = set(record.quality_reasons) - booked - OF_THE_DAEMON
    reasons = tuple(sorted(others | set(energy.quality_reasons)))
    return replace(charged(record, energy), revision=record.revision + 1, quality_reasons=reasons)
