"""When the pieces of all streams arrived, on one line, so that one search counts for many."""

from array import array
from collections.abc import Sequence

import numpy as np

from melodi.energy.columns import Rows, Times, Vector, grown

KEY, INDEX, PIECES = range(3)


class Arrivals:
    """The arrivals of each row's stream as keys that grow from stream to stream.

    A stream's key is its time, moved so that it lies behind all keys of the streams before.
    Even at 64 streams at once the line is used up only after four years.
    """

    def __init__(self) -> None:
        self._keys: Times = np.zeros(1024, np.int64)
        self._used = 0
        self._reached = 0
        self._streams: Times = np.zeros((3, 0), np.int64)

    def resize(self, more: int) -> None:
        """There are so many more rows."""
        self._streams = grown(self._streams, more)

    def put(
        self, rows: Rows, streams: "Sequence[array[int]]", starts_ns: Times, ends_ns: Times
    ) -> None:
        """The streams of some rows, each within its service."""
        counts = np.array([len(one) for one in streams])
        ends, reached = counts.cumsum(), (ends_ns - starts_ns + 2).cumsum()
        count = int(ends[-1])
        if self._used + count > len(self._keys):
            self._make_room(count)
        keys = self._reached + reached - ends_ns - 2
        pieces = np.frombuffer(b"".join(streams), np.int64)
        pieces = np.clip(pieces, starts_ns.repeat(counts), ends_ns.repeat(counts))
        self._keys[self._used : self._used + count] = pieces + keys.repeat(counts)
        self._streams[:, rows] = keys, self._used + ends - counts, counts
        self._used += count
        self._reached += int(reached[-1])

    def drop(self, rows: Sequence[int]) -> None:
        """The rows have no streams any more."""
        self._streams[:, rows] = 0

    def before(self, rows: Rows, edges_ns: Times) -> Vector:
        """How many pieces of each row's stream arrived before its edges."""
        key, index, pieces = self._streams.take(rows, axis=1)
        found = self._keys[: self._used].searchsorted(edges_ns + key)
        counts: Vector = ((found - index) * (pieces > 0)).astype(np.float64)
        return counts

    def _make_room(self, count: int) -> None:
        """Close up the streams that are left, and double the line if that is not enough."""
        alive = self._streams[PIECES].nonzero()[0]
        alive = alive[self._streams[INDEX, alive].argsort()]
        kept = []
        used = 0
        for row in alive.tolist():
            index, pieces = self._streams[INDEX:, row].tolist()
            kept.append(self._keys[index : index + pieces])
            self._streams[INDEX, row] = used
            used += pieces
        size = max(len(self._keys), 2 * (used + count))
        line = np.zeros(size, np.int64)
        if kept:
            line[:used] = np.concatenate(kept)
        self._keys, self._used = line, used
