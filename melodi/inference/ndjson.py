"""Reads newline-delimited JSON as it arrives."""

from collections.abc import Iterator

import orjson

from melodi.inference.lines import MAX_LINE_BYTES, LineSplitter


class NdjsonParser:
    """Remembers the line that has begun; what is no JSON object is counted and left out."""

    def __init__(self, *, limit_bytes: int = MAX_LINE_BYTES) -> None:
        self._lines = LineSplitter(limit_bytes=limit_bytes)
        self._malformed = 0

    def feed(self, data: bytes) -> list[dict[str, object]]:
        """The objects that `data` completes."""
        return list(self._objects(self._lines.feed(data)))

    def finish(self) -> list[dict[str, object]]:
        """The object of a last line that never got its line end; a torn one gives nothing."""
        if not self._lines.pending:
            return []
        found = [read_object(line) for line in self._lines.finish()]
        return [value for value in found if value is not None]

    @property
    def lost(self) -> int:
        """Whole lines that gave no object: malformed, or longer than the limit."""
        return self._malformed + self._lines.dropped

    def _objects(self, lines: list[bytes]) -> Iterator[dict[str, object]]:
        for line in lines:
            if not line.strip():
                continue
            value = read_object(line)
            if value is None:
                self._malformed += 1
            else:
                yield value


def read_object(text: bytes) -> dict[str, object] | None:
    """The JSON object that `text` holds; None where it holds none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
