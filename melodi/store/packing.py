"""Columns of whole numbers in few bytes: differences, sorted by their bytes, compressed."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

Column = npt.NDArray[np.int64]

_LEVEL = 6
_WHOLE = 8


def pack(about: Mapping[str, Any], columns: Mapping[str, Column]) -> bytes:
    """The columns, and `about` as JSON before them.

    Of numbers that grow evenly the differences are small, and their high bytes alike: put side
    by side they take next to nothing.
    """
    parts, shapes = [], []
    for name, column in columns.items():
        small = _unsigned(np.diff(column, prepend=0))
        width = (int(small.max(initial=0)).bit_length() + 7) // 8
        shapes.append((name, len(small), width))
        parts.append(small.view(np.uint8).reshape(-1, _WHOLE)[:, :width].T.tobytes())
    head = orjson.dumps({"about": about, "columns": shapes})
    return zlib.compress(b"\n".join((head, b"".join(parts))), _LEVEL)


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, Column]]:
    """What was packed. Raises ValueError where `data` is something else."""
    try:
        head, _, rest = zlib.decompress(data).partition(b"\n")
        told = orjson.loads(head)
        columns, place = {}, 0
        for name, length, width in told["columns"]:
            whole = np.zeros((length, _WHOLE), dtype=np.uint8)
            some = np.frombuffer(rest, dtype=np.uint8, count=length * width, offset=place)
            whole[:, :width] = some.reshape(width, length).T
            columns[name] = np.cumsum(_signed(whole.view("<u8").ravel()), dtype=np.int64)
            place += length * width
    except (zlib.error, KeyError, TypeError) as error:
        raise ValueError(f"these bytes are not packed columns: {error}") from error
    return told["about"], columns


def _unsigned(numbers: Column) -> npt.NDArray[np.uint64]:
    """0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ..., so that small ones have few bytes."""
    return ((numbers << 1) ^ (numbers >> 63)).astype("<u8")


def _signed(numbers: npt.NDArray[np.uint64]) -> Column:
    return (numbers >> np.uint64(1)).astype(np.int64) ^ -(numbers & np.uint64(1)).astype(np.int64)
