"""Stretches of time as columns: overlaps and unions of many at once."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Kind = TypeVar("Kind", bound=np.generic)
Mask = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Runs:
    """Parts of a column that follow one another; none is empty."""

    starts: Rows
    of: Rows
    """The part that each place belongs to."""

    @classmethod
    def of_equal(cls, keys: Rows) -> "Runs":
        """A part for each stretch of equal keys."""
        ends = (keys[1:] != keys[:-1]).nonzero()[0] + 1
        if not len(ends):
            return cls(np.zeros(min(1, len(keys)), np.intp), np.zeros(len(keys), np.intp))
        edges = np.concatenate(((0,), ends, (len(keys),)))
        return cls(edges[:-1], np.arange(len(ends) + 1).repeat(edges[1:] - edges[:-1]))

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def parts(self) -> list[slice]:
        """Where each lies."""
        return [slice(*ends) for ends in pairwise((*self.starts.tolist(), len(self.of)))]

    def sums(self, columns: Vector) -> Vector:
        """The sum of each part; of a part alone the same, to the last digit."""
        sums: Vector = np.add.reduceat(columns, self.starts, axis=-1)
        return sums

    def spread(self, values: npt.NDArray[Kind]) -> npt.NDArray[Kind]:
        """The value of its part at each place; one part's may stand for all."""
        return values if values.shape[-1] == 1 else values.take(self.of, axis=-1)


def overlaps(starts: Vector, ends: Vector, lengths: Vector | float) -> Vector:
    """How long each stretch has in common with the one from 0 to its length."""
    common: Vector = np.minimum(ends, lengths) - np.maximum(starts, 0.0)
    return np.maximum(common, 0.0)


def union_within(starts: Vector, ends: Vector, length: float) -> float:
    """Length of the union of stretches of time, as far as it lies between 0 and `length`."""
    starts, ends = np.maximum(starts, 0.0), np.minimum(ends, length)
    order = starts.argsort()
    starts, ends = starts[order], ends[order]
    starts[1:] = np.maximum(starts[1:], np.maximum.accumulate(ends)[:-1])
    return float(np.maximum(ends - starts, 0.0).sum())


def grown(table: npt.NDArray[Kind], more: int, *, axis: int = -1) -> npt.NDArray[Kind]:
    """The same columns with so many more zeros each; or so many more columns, or tables."""
    shape = list(table.shape)
    shape[axis] = more
    return np.concatenate((table, np.zeros(shape, table.dtype)), axis=axis)
