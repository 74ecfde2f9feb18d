"""What the books were told, kept for a while in few bytes, so that they can be kept anew."""

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from melodi.energy.bins import Bin, Booked, Interval, Span
from melodi.energy.engine import EngineSteps
from melodi.energy.tally import DomainFacts
from melodi.energy.usage import Usage
from melodi.energy.work import Work
from melodi.store.packing import Column, pack, unpack
from melodi.store.schema import kept_minutes

NS_PER_US = 1000
UNKNOWN = -1
"""In a column of what is never negative."""


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """A request as the ledger was told of it."""

    span: Span
    sent_ns: int
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one daemon's books closed within about a minute.

    Times are monotonic and compare only within a session. When tokens arrived is kept to the
    microsecond, all else as it was.
    """

    session: str
    """One life of a daemon."""
    number: int
    """Which of the session's parts, from 0."""
    minute: int
    """When it was kept, in minutes since 1970 in UTC."""
    facts: tuple[DomainFacts, ...]
    bins: tuple[Bin, ...]
    """What was closed, with how it was booked; each domain's in order."""
    requests: tuple[KeptRequest, ...]
    """What ended; some of the bins that it was in may be in other parts."""
    usages: tuple[Usage, ...] = ()
    steps: tuple[EngineSteps, ...] = ()


def to_kept_row(host: str, kept: Kept) -> dict[str, Any]:
    """The row of `kept_minutes`."""
    return {
        "host": host,
        "session": kept.session,
        "number": kept.number,
        "minute": kept.minute,
        "data": _encode(kept),
    }


def read_kept(
    connection: sa.Connection, host: str, *, first_minute: int, last_minute: int
) -> list[Kept]:
    """What the host kept in these minutes, both included, each session's in order."""
    column = kept_minutes.c
    statement = (
        sa.select(kept_minutes)
        .where(column.host == host, column.minute.between(first_minute, last_minute))
        .order_by(column.session, column.number)
    )
    return [_decode(row) for row in connection.execute(statement).mappings()]


def forget_kept(connection: sa.Connection, host: str, *, before_minute: int) -> None:
    """Throw away what the host kept before that minute."""
    column = kept_minutes.c
    old = sa.and_(column.host == host, column.minute < before_minute)
    connection.execute(sa.delete(kept_minutes).where(old))


class _Words:
    """Numbers for words that come again and again."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, word: Any) -> int:
        return self.numbers.setdefault(word, len(self.numbers))


def _encode(kept: Kept) -> bytes:
    words = _Words()
    bins = _bin_columns(kept.bins, words)
    requests = _request_columns(kept.requests, words)
    about = {
        "facts": [asdict(one) for one in kept.facts],
        "ids": [one.span.request for one in kept.requests],
        "usages": [asdict(one) for one in kept.usages],
        "steps": [asdict(one) for one in kept.steps],
        "words": list(words.numbers),
    }
    return pack(about, bins | requests)


def _decode(row: sa.RowMapping) -> Kept:
    about, columns = unpack(row["data"])
    words = [tuple(one) if isinstance(one, list) else one for one in about["words"]]
    return Kept(
        session=row["session"],
        number=row["number"],
        minute=row["minute"],
        facts=tuple(DomainFacts(**one) for one in about["facts"]),
        bins=tuple(_bins(columns, words)),
        requests=tuple(_requests(about["ids"], columns, words)),
        usages=tuple(Usage(**one) for one in about["usages"]),
        steps=tuple(EngineSteps(**one) for one in about["steps"]),
    )


_BIN = ("domain", "gap_ns", "length_ns", "energy_uj", "gap_uj", "half_ns", "reason", "minute")
_REQUEST = (
    *("domains", "sent_ns", "start_ns", "length_ns", "first_known", "first_ns"),
    *("load_ns", "load_length_ns", "served_by", "input", "prefill", "output", "arrivals"),
    "late_ns",
)


def _bin_columns(bins: Sequence[Bin], words: _Words) -> dict[str, Column]:
    """A bin begins where the one before ended, and its total grows by its energy: mostly 0s."""
    # One domain's after the other's, so that differences are small.
    ordered = sorted(bins, key=lambda one: words(one.domain))
    rows = []
    end_ns = total_uj = 0
    for one in ordered:
        booked = one.booked
        if booked is None:
            raise ValueError("only a bin that was booked can be kept; close it first")
        rows.append(
            (
                words(one.domain),
                one.start_ns - end_ns,
                one.length_ns,
                UNKNOWN if one.energy_uj is None else one.energy_uj,
                one.total_uj - total_uj - (one.energy_uj or 0),
                one.half_width_ns,
                words(one.reason),
                booked.minute,
            )
        )
        end_ns, total_uj = one.end_ns, one.total_uj
    return _columns("bin", _BIN, rows) | {"bin_idle_watts": _bits(ordered)}


def _bins(columns: Mapping[str, Column], words: Sequence[Any]) -> Iterable[Bin]:
    rows = zip(*(columns[f"bin_{name}"].tolist() for name in _BIN), strict=True)
    idle = columns["bin_idle_watts"].view(np.float64).tolist()
    end_ns = total_uj = 0
    for row, watts in zip(rows, idle, strict=True):
        domain, gap_ns, length_ns, energy_uj, gap_uj, half_ns, reason, minute = row
        start_ns, end_ns = end_ns + gap_ns, end_ns + gap_ns + length_ns
        total_uj += gap_uj + max(energy_uj, 0)
        yield Bin(
            domain=words[domain],
            start_ns=start_ns,
            end_ns=end_ns,
            energy_uj=None if energy_uj == UNKNOWN else energy_uj,
            total_uj=total_uj,
            half_width_ns=half_ns,
            reason=words[reason],
            booked=Booked(minute, None if math.isnan(watts) else watts),
        )


def _bits(bins: Iterable[Bin]) -> Column:
    """The bits of each idle power; unknown is NaN."""
    watts = [one.booked.idle_watts if one.booked else None for one in bins]
    return np.array(watts, dtype=np.float64).view(np.int64)


def _request_columns(requests: Sequence[KeptRequest], words: _Words) -> dict[str, Column]:
    """Times of a request count from when it was sent."""
    rows, arrivals = [], [np.empty(0, dtype=np.int64)]
    for one in requests:
        span, sent_ns, load, work = one.span, one.sent_ns, one.span.load, one.span.work
        first_ns = span.first_token_ns
        seen_ns = work.arrivals_ns if work else ()
        if seen_ns:
            arrivals.append((np.frombuffer(seen_ns, dtype=np.int64) - sent_ns) // NS_PER_US)
        rows.append(
            (
                words(one.domains),
                sent_ns,
                span.service.start_ns - sent_ns,
                span.service.length_ns,
                first_ns is not None,
                0 if first_ns is None else first_ns - sent_ns,
                0 if load is None else load.start_ns - sent_ns,
                UNKNOWN if load is None else load.length_ns,
                words((span.backend, span.model)),
                UNKNOWN if work is None else work.input_tokens,
                0 if work is None else work.prefill_tokens,
                0 if work is None else work.output_tokens,
                len(seen_ns),
                span.late_ns,
            )
        )
    return _columns("request", _REQUEST, rows) | {"arrivals_us": np.concatenate(arrivals)}


def _requests(
    ids: Sequence[str], columns: Mapping[str, Column], words: Sequence[Any]
) -> Iterable[KeptRequest]:
    rows = zip(*(columns[f"request_{name}"].tolist() for name in _REQUEST), strict=True)
    place = 0
    for id_, row in zip(ids, rows, strict=True):
        domains, sent_ns, start_ns, length_ns, first_known, first_ns = row[:6]
        load_ns, load_length_ns, served_by, given, prefill, output, arrived, late_ns = row[6:]
        start_ns, load_ns = start_ns + sent_ns, load_ns + sent_ns
        backend, model = words[served_by]
        seen_us = columns["arrivals_us"][place : place + arrived]
        place += arrived
        work = None
        if given != UNKNOWN:
            seen_ns = array("q", (seen_us * NS_PER_US + sent_ns).tobytes())
            work = Work(given, prefill, output, seen_ns)
        span = Span(
            id_,
            Interval(start_ns, start_ns + length_ns),
            sent_ns + first_ns if first_known else None,
            None if load_length_ns == UNKNOWN else Interval(load_ns, load_ns + load_length_ns),
            work,
            backend,
            model,
            late_ns,
        )
        yield KeptRequest(span, sent_ns, words[domains])


def _columns(kind: str, names: Sequence[str], rows: Sequence[Sequence[int]]) -> dict[str, Column]:
    whole = np.array(rows, dtype=np.int64).reshape(len(rows), len(names))
    return {f"{kind}_{name}": whole[:, place] for place, name in enumerate(names)}
