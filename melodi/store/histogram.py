"""Histograms with buckets of equal ratio: percentiles with a bounded relative error, in few bytes.

A histogram is a string of (bucket, count) pairs, so putting two of them one after the other adds
them up. Bucket i holds what is above GAMMA^(i-1) and not above GAMMA^i (DDSketch: Masson, Rim and
Lee, VLDB 2019).
"""

import math

import numpy as np
import numpy.typing as npt

ERROR_RATIO = 0.01
"""A percentile is within this ratio of a value that was really there."""

_GAMMA = (1 + ERROR_RATIO) / (1 - ERROR_RATIO)
_LOG_GAMMA = math.log(_GAMMA)
_ZERO = np.iinfo(np.int32).min
"""The bucket of what has no logarithm."""
_PAIR = np.dtype([("bucket", "<i4"), ("count", "<i4")])


def histogram(values: npt.NDArray[np.float64]) -> bytes:
    """The histogram of finite values; those that are not positive count as zero."""
    buckets = np.full(len(values), _ZERO, dtype=np.int64)
    positive = values > 0
    buckets[positive] = np.ceil(np.log(values[positive]) / _LOG_GAMMA)
    return _pairs(*np.unique(buckets, return_counts=True))


def compact(data: bytes) -> bytes:
    """The same histogram with each bucket once, in order, and none that is empty."""
    pairs = np.frombuffer(data, dtype=_PAIR)
    buckets, places = np.unique(pairs["bucket"], return_inverse=True)
    counts = np.bincount(places, weights=pairs["count"], minlength=len(buckets)).astype(np.int64)
    return _pairs(buckets[counts != 0], counts[counts != 0])


def negated(data: bytes) -> bytes:
    """What takes this histogram away from one that it is put behind."""
    pairs = np.frombuffer(data, dtype=_PAIR)
    return _pairs(pairs["bucket"], -pairs["count"])


def quantile(data: bytes, share: float) -> float | None:
    """The least value that `share` of all values do not exceed (the nearest rank).

    Within ERROR_RATIO; None: no values.
    """
    pairs = np.frombuffer(compact(data), dtype=_PAIR)
    if len(pairs) == 0:
        return None
    reached = np.cumsum(pairs["count"].astype(np.int64))
    # The value that would stand at this place, from 0, if all were sorted. Decimal shares such
    # as 0.95 are a little off in binary: 19 of 20 must not become the 20th.
    place = max(0, math.ceil(share * int(reached[-1]) - 1e-9) - 1)
    bucket = int(pairs["bucket"][np.searchsorted(reached, place, side="right")])
    return 0.0 if bucket == _ZERO else float(2 * math.exp(bucket * _LOG_GAMMA) / (_GAMMA + 1))


def _pairs(buckets: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> bytes:
    pairs = np.empty(len(buckets), dtype=_PAIR)
    pairs["bucket"], pairs["count"] = buckets, counts
    return pairs.tobytes()
