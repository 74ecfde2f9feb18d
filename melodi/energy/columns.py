"""Stretches of time as columns: overlaps and unions of many at once."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Kind = TypeVar("Kind", bound=np.generic)
Mask = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


def overlaps(starts: Vector, ends: Vector, length: float) -> Vector:
    """How long each stretch has in common with the one from 0 to `length`."""
    common: Vector = np.minimum(ends, length) - np.maximum(starts, 0.0)
    return np.maximum(common, 0.0)


def union_within(starts: Vector, ends: Vector, length: float) -> float:
    """Length of the union of stretches of time, as far as it lies between 0 and `length`."""
    starts, ends = np.maximum(starts, 0.0), np.minimum(ends, length)
    order = starts.argsort()
    starts, ends = starts[order], ends[order]
    starts[1:] = np.maximum(starts[1:], np.maximum.accumulate(ends)[:-1])
    return float(np.maximum(ends - starts, 0.0).sum())


def grown(table: npt.NDArray[Kind], more: int) -> npt.NDArray[Kind]:
    """The same table with so many more rows of zeros."""
    return np.concatenate((table, np.zeros((more, *table.shape[1:]), table.dtype)))
