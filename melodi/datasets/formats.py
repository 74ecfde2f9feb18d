"""Rows of a prompt file: JSONL, CSV or one prompt a line, with the broken lines named."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from melodi.errors import PromptSetError

LONGEST_LINE = 4_000_000
"""Characters; a longer line is no prompt that any model reads."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file as fields; `line` counts from 1 and is where the row begins."""

    line: int
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Problem:
    """One line that was left out, and why."""

    line: int
    reason: str


Parser = Callable[[str], Iterator[Row | Problem]]


def jsonl_rows(text: str) -> Iterator[Row | Problem]:
    """One JSON object a line; empty lines count and are passed over."""
    for line, content in _lines(text):
        if len(content) > LONGEST_LINE:
            yield Problem(line, _too_long(len(content)))
            continue
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            yield Problem(line, f"is not JSON ({_what(error)}); write one object a line")
            continue
        if isinstance(value, dict):
            yield Row(line, value)
        else:
            yield Problem(line, f"is JSON, but a {type(value).__name__}; write one object a line")


def txt_rows(text: str) -> Iterator[Row | Problem]:
    """One prompt a line, as it stands."""
    for line, content in _lines(text):
        if len(content) > LONGEST_LINE:
            yield Problem(line, _too_long(len(content)))
        else:
            yield Row(line, {"prompt": content})


def csv_rows(text: str) -> Iterator[Row | Problem]:
    """Comma-separated with a header row that has a column `prompt`; quoted fields may span lines.

    Empty fields are None. Raises PromptSetError where the header lacks `prompt`.
    """
    header: list[str] | None = None
    for line, cells in _csv_records(text):
        if isinstance(cells, csv.Error):
            yield Problem(line, f"is not CSV ({cells}); mend its quotes or shorten it")
        elif not any(cells):
            continue
        elif header is None:
            header = _header(cells)
        elif len(cells) != len(header):
            yield Problem(
                line,
                f"has {len(cells)} fields where the header has {len(header)}; "
                "quote fields that hold commas",
            )
        else:
            values = (cell or None for cell in cells)
            yield Row(line, dict(zip(header, values, strict=True)))


PARSERS: Mapping[str, Parser] = MappingProxyType(
    {".jsonl": jsonl_rows, ".ndjson": jsonl_rows, ".csv": csv_rows, ".txt": txt_rows}
)
"""By a file's suffix, in lower case."""


def decode(content: bytes) -> str:
    """The text of a file in UTF-8, without a byte order mark.

    Bytes that are not UTF-8 become lone surrogates, so that only their lines are lost.
    """
    return content.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # not splitlines(): JSON strings and prose may hold U+2028 and form feeds
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, content.removesuffix("\r")


def _csv_records(text: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each record's cells, or what is wrong with it, and the line where it begins."""
    with _long_fields():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        while True:
            line = reader.line_num + 1
            try:
                yield line, next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, error


def _header(cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if "prompt" not in header:
        raise PromptSetError(
            f"no column `prompt` among {', '.join(map(repr, header))}; "
            "begin the file with a header row, its names separated by commas"
        )
    if len(set(header)) < len(header):
        raise PromptSetError("two columns have one name; give each column its own name")
    return header


def _what(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error)


def _too_long(characters: int) -> str:
    return f"has {characters:,} characters; shorten it to {LONGEST_LINE:,} or fewer"


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module, whose limit is global, read prompts longer than 128 KiB."""
    before = csv.field_size_limit(LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)
