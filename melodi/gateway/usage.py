"""Asks vLLM's streams for their token counts, and takes the answer out again."""

import re

from melodi.inference.ndjson import read_object

PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
QUESTION = b',"stream_options":{"include_usage":true}'
END_OF_EVENT = re.compile(rb"\r?\n\r?\n")
MAX_HELD_BYTES = 64 * 1024
"""No usage event is longer; vLLM writes an event at once, so what is held is seldom in parts."""


def ask(body: bytes) -> bytes | None:
    """A streaming request's text with the question added at its end, all else as it was.

    None where the request speaks of stream_options itself: that is its own business.
    """
    if b'"stream_options"' in body:
        return None
    end = body.rindex(b"}")
    return body[:end] + QUESTION + body[end:]


class UsageFilter:
    """Passes a stream of events on without the one that answers the question.

    A server that is set to tell usage in every event would have told it unasked: from the first
    such event on, everything passes.
    """

    def __init__(self) -> None:
        self._held = b""
        self._told_unasked = False

    def feed(self, data: bytes) -> bytes:
        """What may leave now: whole events, and parts of those too long to be the answer."""
        if not self._held and data.endswith(b"\n\n") and b'"usage"' not in data:
            return data
        self._held += data
        start = 0
        leaving: list[bytes] = []
        for end in END_OF_EVENT.finditer(self._held):
            event = self._held[start : end.end()]
            start = end.end()
            if not self._is_answer(event):
                leaving.append(event)
        self._held = self._held[start:]
        if len(self._held) > MAX_HELD_BYTES:
            leaving.append(self.finish())
        return b"".join(leaving)

    def finish(self) -> bytes:
        """What is left when the stream ends."""
        held, self._held = self._held, b""
        return held

    def _is_answer(self, event: bytes) -> bool:
        if self._told_unasked or b'"usage"' not in event:
            return False
        value = read_object(event.strip().removeprefix(b"data:")) or {}
        if not isinstance(value.get("usage"), dict):
            return False
        self._told_unasked = value.get("choices") != []
        return not self._told_unasked
