"""Puts the energy into the bytes of an answer, all else as it was, however the network cut them."""

import re
from abc import ABC, abstractmethod
from typing import Protocol

from melodi.gateway.usage import END_OF_EVENT
from melodi.inference.bodies import DONE
from melodi.inference.lines import MAX_LINE_BYTES
from melodi.inference.ndjson import read_object
from melodi.inference.sse import SseParser

FIELD = b"energy"
MAX_EVENT_BYTES = 1024 * 1024
"""A longer event passes in parts, and is taken for none that ends a stream."""
LAST_EVENTS = frozenset(
    {"message_stop", "response.completed", "response.incomplete", "response.failed"}
)
"""Types of the events that end streams which have no `[DONE]`."""
MAY_BE_LAST = re.compile(rb"\[DONE\]|message_stop|response\.(completed|incomplete|failed)")


class Splice(Protocol):
    """One body that the energy goes into; what it holds back waits for `finish`."""

    @property
    def due(self) -> bool:
        """Whether the last part of the body is held, so that the energy is wanted now."""
        ...

    def feed(self, data: bytes) -> bytes:
        """What may leave now."""
        ...

    def finish(self, energy: bytes | None) -> bytes:
        """What is left, with the energy (a JSON object) where it has a place; None: without."""
        ...


class WholeSplice:
    """A body that is held until its end, because its length stands before it.

    A JSON object gains a field. Anything else stays as it is: what is no object, one that tells
    an energy of its own, and what is compressed (`readable` is false).
    """

    due = False

    def __init__(self, *, readable: bool, limit_bytes: int = MAX_LINE_BYTES) -> None:
        self._readable = readable
        self._limit_bytes = limit_bytes
        self._held = bytearray()
        self._passes = False

    def feed(self, data: bytes) -> bytes:
        if self._passes:
            return data
        self._held += data
        if len(self._held) <= self._limit_bytes:
            return b""
        self._passes = True
        return self._take()

    def finish(self, energy: bytes | None) -> bytes:
        body = self._take()
        return body if energy is None or not self._readable else with_field(body, energy)

    def _take(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held


class _PartsSplice(ABC):
    """A stream of parts, each passed on once it is whole, up to the one that ends the stream."""

    limit_bytes: int
    overlap_bytes: int
    """How much of what has been searched may be the beginning of a part's end."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0
        self._amid = False
        self.due = False

    def feed(self, data: bytes) -> bytes:
        self._held += data
        start = 0
        while not self.due and (end := self._end_of_part(max(start, self._searched))):
            part = bytes(self._held[start:end])
            self.due = not self._amid and self._is_last(part)
            self._amid = False
            start = start if self.due else end
            self._searched = end
        leaving = self._take(start)
        if len(self._held) > self.limit_bytes and not self.due:
            leaving += self._take(len(self._held) - self.overlap_bytes)
            self._amid = True
        self._searched = max(0, len(self._held) - self.overlap_bytes)
        return leaving

    def _take(self, size_bytes: int) -> bytes:
        taken = bytes(self._held[:size_bytes])
        del self._held[:size_bytes]
        return taken

    @abstractmethod
    def _end_of_part(self, start: int) -> int:
        """Where the first part ends that is searched for from `start`; 0: not in what is held."""

    @abstractmethod
    def _is_last(self, part: bytes) -> bool: ...


class EventSplice(_PartsSplice):
    """Events, which gain a comment before the event that ends them, or at their end."""

    limit_bytes = MAX_EVENT_BYTES
    overlap_bytes = 3

    def finish(self, energy: bytes | None) -> bytes:
        """As the protocol says; after an event that was torn there is no place for a comment."""
        held = self._take(len(self._held))
        torn = not self.due and (held or self._amid)
        return held if energy is None or torn else b": %s %s\n\n%s" % (FIELD, energy, held)

    def _end_of_part(self, start: int) -> int:
        found = END_OF_EVENT.search(self._held, start)
        return found.end() if found else 0

    def _is_last(self, part: bytes) -> bool:
        if MAY_BE_LAST.search(part) is None:
            return False
        for event in SseParser().feed(part):
            value = read_object(event.data) or {}
            if event.data == DONE or value.get("type") in LAST_EVENTS:
                return True
        return False


class LineSplice(_PartsSplice):
    """Lines of JSON, of which the one that says `done`, or an error, gains a field."""

    limit_bytes = MAX_LINE_BYTES
    overlap_bytes = 0

    def finish(self, energy: bytes | None) -> bytes:
        """As the protocol says; the last line may lack its end."""
        last = self._take(self._end_of_part(0) or len(self._held))
        rest = self._take(len(self._held))
        if energy is not None and not self._amid and self._is_last(last):
            last = with_field(last, energy)
        return last + rest

    def _end_of_part(self, start: int) -> int:
        return self._held.find(b"\n", start) + 1

    def _is_last(self, part: bytes) -> bool:
        value = read_object(part) or {}
        return value.get("done") is True or bool(value.get("error"))


def with_field(text: bytes, energy: bytes) -> bytes:
    """A JSON object's text with the field at its end, all else as it was.

    As it was altogether where it is no object, or has such a field.
    """
    value = read_object(text)
    if value is None or FIELD.decode() in value:
        return text
    end = text.rindex(b"}")
    comma = b"," if value else b""
    return b'%s%s"%s":%s%s' % (text[:end], comma, FIELD, energy, text[end:])
