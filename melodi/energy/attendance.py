"""Who of one model was in service in a bin, for how long, and what they did in it."""

from dataclasses import dataclass

import numpy as np

from melodi.energy.bins import Bin
from melodi.energy.columns import Vector, overlaps, union_within
from melodi.energy.roster import (
    END,
    FIRST,
    LOAD_END,
    LOAD_START,
    PREFILL,
    START,
    Guests,
)
from melodi.energy.work import Tokens


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
    total: float
    """Time in service of all, with the load as one more."""
    tokens: Tokens | None
    """None where the tokens of somebody are not known, or the model was loading."""

    @property
    def seats(self) -> int:
        """How many took part, with the load as one more."""
        return len(self.tau) + (self.load > 0)


def attendance(guests: Guests, bin_: Bin, *, waiting: Guests | None) -> Attendance:
    """What `guests` did in the bin while `waiting` waited for their model."""
    length, load = float(bin_.length_ns), 0.0
    start, end, tau = guests.times[START], guests.times[END], guests.tau
    if waiting is not None:
        # All of them wait for one load: the stretch that holds what each saw of it.
        begun, loaded = waiting.times[LOAD_START].min(), waiting.times[LOAD_END].max()
        load = max(0.0, float(min(loaded, length) - max(begun, 0.0)))
        start, end = np.append(start, begun), np.append(end, loaded)
    whole = max(float(tau.max(initial=0.0)), load) == length
    union = length if whole else union_within(start, end, length)
    before_first = overlaps(guests.times[START], guests.times[FIRST], length)
    tokens = None if load > 0 else _tokens(guests, bin_, union=union)
    return Attendance(tau, before_first, load, union, float(tau.sum()) + load, tokens)


def _tokens(guests: Guests, bin_: Bin, *, union: float) -> Tokens | None:
    """The tokens of each in the bin; None where somebody's are not known.

    The first token is the prefill's: decoding gives the others.
    """
    tokens_in, prefill_rate, decode_rate, per_piece, counted = guests.counts
    if not counted.all():
        return None
    length = float(bin_.length_ns)
    first = guests.times[FIRST]
    prefill = prefill_rate * overlaps(guests.times[PREFILL], first, length)
    decoding = overlaps(first, guests.times[END], length)
    decode, before = decode_rate * decoding, decode_rate * np.maximum(-first, 0.0)
    present, steps = np.zeros_like(decode), 0.0
    streamed = per_piece > 0
    # The stream that decoded longest sets the pace of the engine while anybody was served.
    lead = int((streamed * decoding).argmax()) if len(guests) else -1
    if lead >= 0 and streamed[lead]:
        seen_before, seen = guests.arrived
        came = np.maximum(seen - 1.0, 0.0) - np.maximum(seen_before - 1.0, 0.0)
        if decoding[lead] > 0:
            steps = float(came[lead] / decoding[lead] * union)
        if steps > 0:
            # Whoever was not seen had a token in each step.
            decode = steps / union * decoding
            present = np.where(streamed, seen - seen_before, decode)
        decode = np.where(streamed, came, decode)
        before = np.where(streamed, seen_before, before)
    context = decode * (tokens_in + before + decode / 2)
    return Tokens(prefill, decode, context, present, steps)
