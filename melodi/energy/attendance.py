"""Who of one model was in service in a bin, for how long, and what they did in it."""

from dataclasses import dataclass

import numpy as np

from melodi.energy.bins import Bin
from melodi.energy.columns import Vector, overlaps, union_within
from melodi.energy.roster import (
    COUNTED,
    END,
    FIRST,
    INPUT,
    LOAD_END,
    LOAD_START,
    OUTPUT,
    PER_PIECE,
    PREFILL,
    START,
    UNCACHED,
    Guests,
)
from melodi.energy.work import Tokens, arrived


@dataclass(frozen=True, slots=True)
class Attendance:
    """The requests of one model of one backend in one bin, as columns; times in ns."""

    tau: Vector
    """How long each was in service."""
    before_first: Vector
    """The part of `tau` before its first token; none where that was not seen."""
    load: float
    """How long a load of the model went on, on which some of them waited."""
    union: float
    """How long anybody was in service or the model was loading."""
    tokens: Tokens | None
    """None where the tokens of somebody are not known, or the model was loading."""

    @property
    def total(self) -> float:
        """Time in service of all, with the load as one more."""
        return float(self.tau.sum()) + self.load

    @property
    def seats(self) -> int:
        """How many took part, with the load as one more."""
        return len(self.tau) + (self.load > 0)


def attendance(guests: Guests, bin_: Bin, *, waiting: Guests | None) -> Attendance:
    """What `guests` did in the bin while `waiting` waited for their model."""
    length = float(bin_.length_ns)
    start, end = guests.times[START], guests.times[END]
    tau = overlaps(start, end, length)
    load = 0.0
    if waiting is None:
        whole = len(tau) > 0 and tau.max() == length
        union = length if whole else union_within(start, end, length)
        tokens = _tokens(guests, bin_, tau, union=union)
    else:
        # All of them wait for one load: the stretch that holds what each saw of it.
        begun, loaded = waiting.times[LOAD_START].min(), waiting.times[LOAD_END].max()
        load = max(0.0, float(min(loaded, length) - max(begun, 0.0)))
        union = union_within(np.append(start, begun), np.append(end, loaded), length)
        tokens = None if load > 0 else _tokens(guests, bin_, tau, union=union)
    before_first = overlaps(start, np.minimum(guests.times[FIRST], end), length)
    return Attendance(tau, before_first, load, union, tokens)


def _tokens(guests: Guests, bin_: Bin, tau: Vector, *, union: float) -> Tokens | None:
    """The tokens of each in the bin; None where somebody's are not known.

    The first token is the prefill's: decoding gives the others.
    """
    counts, there = guests.counts, tau > 0
    if not (counts[COUNTED] >= there).all():
        return None
    length = float(bin_.length_ns)
    first, end = guests.times[FIRST], guests.times[END]
    prefill = counts[UNCACHED] * _part(guests.times[PREFILL], first, length)
    decoding = overlaps(first, end, length)
    lasting = np.maximum(end - first, 1.0)
    before = counts[OUTPUT] * np.minimum(np.maximum(-first, 0.0) / lasting, 1.0)
    decode = np.maximum(counts[OUTPUT] - 1.0, 0.0) * decoding / lasting
    present, steps = np.zeros_like(decode), 0.0
    streamed = counts[PER_PIECE] > 0
    if streamed.any():
        seen_before, seen = arrived(guests.arrivals, counts[PER_PIECE], bin_.start_ns, bin_.end_ns)
        came = (np.maximum(seen - 1.0, 0.0) - np.maximum(seen_before - 1.0, 0.0)) * there
        # The stream that decoded longest sets the pace of the engine while anybody was served.
        lead = int(np.where(streamed, decoding, -1.0).argmax())
        if decoding[lead] > 0:
            steps = float(came[lead] / decoding[lead] * union)
        if steps > 0:
            # Whoever was not seen had a token in each step.
            decode = steps * decoding / union
            present = np.where(streamed, (seen - seen_before) * there, decode)
        decode = np.where(streamed, came, decode)
        before = np.where(streamed, seen_before, before)
    context = decode * (counts[INPUT] + before + decode / 2)
    return Tokens(prefill, decode, context, present, steps)


def _part(starts: Vector, ends: Vector, length: float) -> Vector:
    """How much of each stretch lies in the bin; all of an instant that does."""
    lasting = ends - starts
    part = overlaps(starts, ends, length) / np.maximum(lasting, 1.0)
    return np.where(lasting > 0, part, (starts >= 0) & (starts < length))
