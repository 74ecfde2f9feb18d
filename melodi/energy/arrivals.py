"""When the pieces of all streams arrived, on one line, so that one search counts for many."""

from array import array

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

    def put(self, row: int, arrivals_ns: "array[int]", start_ns: int, end_ns: int) -> None:
        """A row's stream, within its service."""
        count = len(arrivals_ns)
        if self._used + count > len(self._keys):
            self._make_room(count)
        key = self._reached - start_ns
        keys = np.frombuffer(arrivals_ns, np.int64) + key
        if arrivals_ns[0] < start_ns or arrivals_ns[-1] > end_ns:
            keys = np.clip(keys, start_ns + key, end_ns + key)
        self._keys[self._used : self._used + count] = keys
        self._streams[:, row] = (key, self._used, count)
        self._used += count
        self._reached += end_ns - start_ns + 2

    def drop(self, row: int) -> None:
        """The row has no stream any more."""
        self._streams[:, row] = 0

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
