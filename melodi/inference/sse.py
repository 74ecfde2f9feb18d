"""Reads server-sent events as they arrive (WHATWG HTML, 9.2.6)."""

from typing import NamedTuple

from melodi.inference.lines import MAX_LINE_BYTES, LineSplitter

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DATA = b"data: "


class SseEvent(NamedTuple):
    """One event: its name (`message` where none was given) and its data lines joined by LF."""

    name: str
    data: bytes


class SseParser:
    """Remembers the event that has begun; comments, ids and retry times are passed over."""

    def __init__(self, *, limit_bytes: int = MAX_LINE_BYTES) -> None:
        self._lines = LineSplitter(limit_bytes=limit_bytes)
        self._limit_bytes = limit_bytes
        self._at_start = True
        self._oversized = 0
        self._name = b""
        self._data: list[bytes] = []
        self._size_bytes = 0

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that `data` completes."""
        if self._is_one_event(data):
            return [SseEvent("message", data[len(_DATA) : -2])]
        events: list[SseEvent] = []
        for line in self._lines.feed(data):
            events += self._line(line)
        return events

    def finish(self) -> list[SseEvent]:
        """The last event, where the stream ended without the blank line that closes one."""
        events: list[SseEvent] = []
        for line in (*self._lines.finish(), b""):
            events += self._line(line)
        return events

    @property
    def lost(self) -> int:
        """Lines and events left out because they were longer than the limit."""
        return self._oversized + self._lines.dropped

    def _is_one_event(self, data: bytes) -> bool:
        """Whether it is what servers send most: one whole event of one line of data."""
        return (
            data.startswith(_DATA)
            and data.endswith(b"\n\n")
            and data.count(b"\n") == 2
            and b"\r" not in data
            and len(data) <= self._limit_bytes
            and not (self._at_start or self._size_bytes or self._name or self._lines.pending)
            and not self._lines.may_skip
        )

    def _line(self, line: bytes) -> list[SseEvent]:
        if self._at_start:
            line = line.removeprefix(BYTE_ORDER_MARK)
            self._at_start = False
        if not line:
            return self._close_event()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._add(value)
        elif field == b"event":
            self._name = value
        return []

    def _add(self, value: bytes) -> None:
        self._size_bytes += len(value) + 1
        if self._size_bytes <= self._limit_bytes + 1:
            self._data.append(value)
        else:
            self._data = []

    def _close_event(self) -> list[SseEvent]:
        name, data, size_bytes = self._name, self._data, self._size_bytes
        self._name, self._data, self._size_bytes = b"", [], 0
        if size_bytes > self._limit_bytes + 1:
            self._oversized += 1
            return []
        if not data:
            return []
        return [SseEvent(name.decode("utf-8", "replace") or "message", b"\n".join(data))]
