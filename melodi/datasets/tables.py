"""Writes batches of one schema as Parquet, JSON lines or CSV to anything that takes bytes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import orjson
import pyarrow as pa  # type: ignore[import-untyped]

from melodi.datasets.columns import COLUMNS
from melodi.datasets.selection import Format

Write = Callable[[pa.RecordBatch], None]
_NESTED = tuple(name for name, column in COLUMNS.items() if column.arrow_type == "json")


@contextmanager
def writing(chosen: Format, sink: BinaryIO, schema: pa.Schema) -> Iterator[Write]:
    """A function that writes one batch; the file is whole when the context ends well.

    Nested columns are JSON text in Parquet and CSV, and JSON itself in JSON lines. Moments are
    UTC. In CSV null is nothing between the commas, and an empty text is two quotes.
    """
    if chosen is Format.JSONL:
        yield lambda batch: _write_lines(sink, batch)
        return
    if chosen is Format.CSV:
        from pyarrow import csv

        writer: Any = csv.CSVWriter(sink, schema)
    else:
        from pyarrow import parquet

        writer = parquet.ParquetWriter(sink, schema, compression="zstd")
    with writer:
        yield writer.write_batch


def _write_lines(sink: BinaryIO, batch: pa.RecordBatch) -> None:
    option = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
    for row in batch.to_pylist():
        for name in _NESTED:
            if row[name] is not None:
                row[name] = orjson.Fragment(row[name])
        sink.write(orjson.dumps(row, option=option))
