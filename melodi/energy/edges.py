"""The points of an energy curve, as plain numbers: objects would take five times the memory."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

_NUMBERS = 5
"""That an edge is made of."""


class Edge(NamedTuple):
    """A point of the curve: `total_uj` had been used at `at_ns`, give or take `half_width_ns`."""

    at_ns: int
    half_width_ns: int
    total_uj: int
    unmeasured_ns: int = 0
    """How long nobody measured before it, at most; `total_uj` holds nothing of that time."""
    stalls: int = 0
    """How many bins before it were stalled or unmeasured."""

    @property
    def earliest_ns(self) -> int:
        return self.at_ns - self.half_width_ns

    @property
    def latest_ns(self) -> int:
        return self.at_ns + self.half_width_ns


class Edges:
    """Edges in order of time. One thread appends; any thread may read what is there."""

    __slots__ = ("_numbers", "last")

    def __init__(self) -> None:
        self._numbers = array("q")
        self.last: Edge | None = None
        """The latest; None: there is none yet."""

    def append(self, edge: Edge) -> None:
        """The edge that comes next."""
        # At one go: nobody sees a part of it.
        self._numbers.extend(edge)
        self.last = edge

    def after(self, at_ns: int) -> int:
        """The place of the first edge that is later; their number where none is."""
        numbers = self._numbers
        return bisect_right(range(0, len(numbers), _NUMBERS), at_ns, key=numbers.__getitem__)

    def latest(self, count: int) -> "Edges":
        """A copy of the last so many, or of all."""
        some = Edges()
        some._numbers, some.last = self._numbers[-count * _NUMBERS :], self.last
        return some

    def __getitem__(self, place: int) -> Edge:
        start = range(0, len(self._numbers), _NUMBERS)[place]
        return Edge._make(self._numbers[start : start + _NUMBERS])

    def __iter__(self) -> Iterator[Edge]:
        return map(self.__getitem__, range(len(self)))

    def __len__(self) -> int:
        return len(self._numbers) // _NUMBERS
