"""Who of one model was in service in a bin, for how long, and what they did in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melodi.energy.columns import Mask, Runs, Vector, overlaps, union_within
from melodi.energy.engine import EngineBin
from melodi.energy.roster import (
    COUNTED,
    END,
    FIRST,
    LOAD_END,
    LOAD_START,
    PREFILL,
    START,
    Guests,
)
from melodi.energy.work import TIME

WAITED_PACE = 1.5
"""Tokens of the streams beside it to each of its own, from which on a request that nobody saw must
have waited."""


@dataclass(frozen=True, slots=True)
class Attendance:
    """The requests of one model of one backend in one bin; times in ns."""

    done: Sequence[float]
    """TIME ... CONTEXT of all together."""
    steps: float
    """Engine steps of the bin; 0 where nothing streamed in it, which leaves them unknown."""
    counted: bool
    """Whether the tokens of all are known; not while the model was loading."""
    load: float
    """How long a load of the model went on, on which some of them waited."""
    union: float
    """How long anybody was in service or the model was loading."""
    served: int
    """How many may have been in service, edges taken with their uncertainty."""

    @property
    def total(self) -> float:
        """Time in service of all, with the load as one more."""
        return self.done[TIME] + self.load

    @property
    def seats(self) -> int:
        """How many took part, with the load as one more."""
        return self.served + (self.load > 0)


@dataclass(frozen=True, slots=True)
class Deeds:
    """What each guest did in its bin; fractions where tokens were spread evenly."""

    done: Vector
    """A row for each of TIME ... CONTEXT."""
    early: Vector
    """The part of the first EARLY rows before the first token; none where that was not seen."""


def attendances(
    guests: Guests, engines: Sequence[EngineBin | None]
) -> tuple[list[Attendance], Deeds]:
    """What the guests of each table did in their bin, and each of them; there is one at least.

    `engines` is what the engine of each table tells of its bin; None: nothing.
    """
    tables = guests.tables
    parts = tables.parts
    loading = [_loading(guests, part) for part in parts]
    loads = [0.0 if one is None else one[2] for one in loading]
    unions = _unions(guests, parts, loading)
    deeds, steps = _deeds(guests, parts, np.array(unions), engines)
    counted = guests.counts[COUNTED]
    if guests.served is not None:
        counted = np.where(guests.served, counted, 1.0)
    known = np.minimum.reduceat(counted, tables.starts).tolist()
    columns = (tables.sums(deeds.done).T.tolist(), steps.tolist(), known, loads, unions, parts)
    return [
        Attendance(done, step, all_known > 0 and load == 0, load, union, _served(guests, part))
        for done, step, all_known, load, union, part in zip(*columns, strict=True)
    ], deeds


def _served(guests: Guests, part: slice) -> int:
    """How many of a table may have been in service."""
    if guests.served is None:
        return int(part.stop - part.start)
    return int(np.count_nonzero(guests.served[part]))


def _loading(guests: Guests, part: slice) -> tuple[float, float, float] | None:
    """From when to when a table's model was loading, and how long in the bin; None: it was not.

    All of them wait for one load: the stretch that holds what each saw of it.
    """
    if guests.waiting is None or not guests.waiting[part].any():
        return None
    waiting = guests.waiting[part]
    begun = float(guests.times[LOAD_START, part][waiting].min())
    loaded = float(guests.times[LOAD_END, part][waiting].max())
    return begun, loaded, max(0.0, min(loaded, guests.length.item(part.start)) - max(begun, 0.0))


def _unions(
    guests: Guests, parts: Sequence[slice], loading: Sequence[tuple[float, float, float] | None]
) -> list[float]:
    """How long anybody of each table was in service, or its model was loading."""
    longest = np.maximum.reduceat(guests.tau, guests.tables.starts).tolist()
    lengths = guests.length[guests.tables.starts].tolist()
    unions = []
    for part, tau, length, load in zip(parts, longest, lengths, loading, strict=True):
        if tau == length or (load is not None and load[2] == length):
            unions.append(length)
        elif load is None and part.stop - part.start == 1:
            unions.append(tau)
        else:
            extra = [] if load is None else [load]
            starts = np.append(guests.times[START, part], [one[0] for one in extra])
            ends = np.append(guests.times[END, part], [one[1] for one in extra])
            unions.append(union_within(starts, ends, length))
    return unions


def _deeds(
    guests: Guests, parts: Sequence[slice], unions: Vector, engines: Sequence[EngineBin | None]
) -> tuple[Deeds, Vector]:
    """What each did in its bin, and the steps of each table.

    The first token is the prefill's: the step that reads a prompt makes it, as others make theirs.
    """
    tables, first = guests.tables, guests.times[FIRST]
    tokens_in, prefill_rate, decode_rate, per_piece, _ = guests.counts
    prefill = prefill_rate * overlaps(guests.times[PREFILL], first, guests.length)
    decoding = overlaps(first, guests.times[END], guests.length)
    streamed = per_piece > 0
    read = _read(guests)
    made = read
    before = decode_rate * np.maximum(-first, 0.0)
    if streamed.any() or any(engines):
        seen_before, seen = guests.arrived
        came = np.maximum(seen - 1.0, 0.0) - np.maximum(seen_before - 1.0, 0.0)
        made = np.where(streamed, seen - seen_before - came, read)
        steps = _steps(parts, came, streamed * decoding, unions)
        told = _told(parts, prefill, steps, unions, engines)
        steps += told
        # Whoever was not seen had a token in each step, unless it had to wait for the first.
        pace = tables.spread(np.divide(steps, unions, out=np.zeros_like(steps), where=steps > 0))
        usual = _mean(tables, decode_rate, streamed)
        rate = np.where((pace > 0) & (usual <= WAITED_PACE * decode_rate), pace, decode_rate)
        decode = np.where(streamed, came, rate * decoding)
        before = np.where(streamed, seen_before, before)
        present = np.where(streamed, seen - seen_before, decode) * (pace > 0)
        if told.any():
            present += read * tables.spread(told > 0) * ~streamed
        present = np.minimum(present, tables.spread(steps))
    else:
        decode = decode_rate * decoding
        present, steps = np.zeros_like(decode), np.zeros(len(parts))
    context = decode * (tokens_in + before + decode / 2)
    reading = present - np.minimum(present, decode)
    waiting = overlaps(guests.times[START], first, guests.length)
    done = np.array((guests.tau, prefill, present, made + decode, context))
    return Deeds(done, np.array((waiting, prefill, reading, made))), steps


def _mean(tables: Runs, values: Vector, some: Mask) -> Vector:
    """For each guest the mean of some of its table; 0 where there are none."""
    counts = tables.sums(some.astype(np.float64))
    sums = tables.sums(values * some)
    return tables.spread(np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0))


def _steps(parts: Sequence[slice], came: Vector, decoding: Vector, unions: Vector) -> Vector:
    """The engine steps of each table's bin; 0 where nobody streamed, which leaves them unknown.

    The stream that decoded longest sets the pace of the engine while anybody was served.
    """
    leads = [part.start + int(decoding[part].argmax()) for part in parts]
    longest = decoding[leads]
    pace = np.divide(came[leads], longest, out=np.zeros_like(longest), where=longest > 0)
    return pace * unions


def _told(
    parts: Sequence[slice],
    prefill: Vector,
    seen: Vector,
    unions: Vector,
    engines: Sequence[EngineBin | None],
) -> Vector:
    """The steps that engines tell of each table's bin, where no stream showed them; else 0."""
    told = np.zeros(len(parts))
    for number, (part, engine) in enumerate(zip(parts, engines, strict=True)):
        if engine is not None and seen[number] == 0 and unions[number] > 0:
            told[number] = engine.steps_beside(float(prefill[part].sum()))
    return told


def _read(guests: Guests) -> Vector:
    """The part of each prompt that was read in the bin."""
    begun, first = guests.times[PREFILL], guests.times[FIRST]
    whole = first - begun
    reading = overlaps(begun, first, guests.length)
    part: Vector = np.divide(reading, whole, out=np.zeros_like(reading), where=whole > 0)
    return part
