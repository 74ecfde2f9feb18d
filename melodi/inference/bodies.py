"""Turns the bytes of a response body into the JSON objects in it, by content type."""

import zlib
from typing import Protocol

from melodi.inference.lines import MAX_LINE_BYTES
from melodi.inference.ndjson import NdjsonParser, read_object
from melodi.inference.sse import SseEvent, SseParser

DONE = b"[DONE]"
GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Body(Protocol):
    """A body that is read as it comes."""

    @property
    def lost(self) -> int:
        """Parts of it that could not be read."""
        ...

    @property
    def ended(self) -> bool:
        """Whether it has said that it is whole; an NDJSON body leaves that to its objects."""
        ...

    def feed(self, data: bytes) -> list[dict[str, object]]: ...

    def finish(self) -> list[dict[str, object]]: ...


class NdjsonBody(NdjsonParser):
    """One JSON object a line."""

    ended = False


class SseBody:
    """Server-sent events with a JSON object each, up to `[DONE]`."""

    def __init__(self) -> None:
        self._parser = SseParser()
        self._malformed = 0
        self.ended = False

    @property
    def lost(self) -> int:
        return self._parser.lost + self._malformed

    def feed(self, data: bytes) -> list[dict[str, object]]:
        return self._objects(self._parser.feed(data))

    def finish(self) -> list[dict[str, object]]:
        malformed = self._malformed
        objects = self._objects(self._parser.finish())
        # What the end tore is not malformed.
        self._malformed = malformed
        return objects

    def _objects(self, events: list[SseEvent]) -> list[dict[str, object]]:
        objects = []
        for event in events:
            if event.data == DONE:
                self.ended = True
            elif (value := read_object(event.data)) is None:
                self._malformed += 1
            else:
                objects.append(value)
        return objects


class WholeBody:
    """One JSON object, or any text, kept until its end and up to a limit."""

    def __init__(self, *, limit_bytes: int = MAX_LINE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._data = bytearray()
        self.lost = 0
        self.ended = False

    @property
    def text(self) -> str:
        """What has come of it."""
        return self._data.decode("utf-8", "replace").strip()

    def feed(self, data: bytes) -> list[dict[str, object]]:
        if len(self._data) + len(data) <= self._limit_bytes and not self.lost:
            self._data += data
        else:
            self.lost = 1
        return []

    def finish(self) -> list[dict[str, object]]:
        value = None if self.lost else read_object(bytes(self._data))
        self.ended = value is not None
        self.lost = int(value is None)
        return [] if value is None else [value]


class UnreadBody:
    """A body whose type or encoding is unknown here."""

    lost = 1
    ended = False

    def feed(self, data: bytes) -> list[dict[str, object]]:
        del data
        return []

    def finish(self) -> list[dict[str, object]]:
        return []


def body_of(content_type: str) -> Body:
    """The body to read for a media type, given without its parameters."""
    if content_type == "application/x-ndjson":
        return NdjsonBody()
    if content_type == "text/event-stream":
        return SseBody()
    return WholeBody() if content_type == "application/json" else UnreadBody()


class Inflater:
    """Decompresses a copy of a gzip or zlib body, within a bound of memory."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(GZIP_OR_ZLIB)

    def feed(self, data: bytes) -> bytes:
        """What `data` holds; raises zlib.error where it is torn or swells beyond the bound."""
        plain = self._inflate.decompress(data, MAX_LINE_BYTES)
        if self._inflate.unconsumed_tail:
            raise zlib.error("a compressed body swells beyond what is read")
        return plain
