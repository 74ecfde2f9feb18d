"""Watches one response go by, byte by byte, and writes what it sees into the timeline."""

import logging
from collections.abc import Iterable

from melodi.inference.backends import messages, ollama, openai, responses, vllm
from melodi.inference.backends.base import Dialect, Ending, Progress, RequestFacts
from melodi.inference.backends.refusals import error_text
from melodi.inference.bodies import Body, Inflater, UnreadBody, WholeBody, body_of
from melodi.inference.ndjson import read_object
from melodi.inference.timeline import RequestTimeline

logger = logging.getLogger(__name__)

SHARED_DIALECTS = responses.DIALECTS | messages.DIALECTS
DIALECTS = {
    "ollama": ollama.DIALECTS | openai.DIALECTS | SHARED_DIALECTS,
    "vllm": vllm.DIALECTS | SHARED_DIALECTS,
    "openai": openai.DIALECTS | SHARED_DIALECTS,
}
STREAM_TYPES = frozenset({"application/x-ndjson", "text/event-stream"})
_LENGTHS_READ = {len(b"content-type"), len(b"content-encoding")}
MAX_ERROR_BYTES = 64 * 1024


def dialect_of(kind: str, path: str) -> Dialect | None:
    """How a POST to `path` of such a backend is spoken; None where it is no inference."""
    return DIALECTS[kind].get(path)


def read_request(dialect: Dialect, body: bytes) -> RequestFacts:
    """What a request's body asks for; nothing is known of a body that is no JSON object."""
    request = read_object(body)
    return RequestFacts() if request is None else dialect.read_request(request)


class Observer:
    """One response: takes its head, its bytes and its end, and never raises.

    What cannot be read costs the record its token counts and nothing else.
    """

    def __init__(self, timeline: RequestTimeline, dialect: Dialect) -> None:
        self._progress = Progress(timeline)
        self._absorb = dialect.absorb
        self._body: Body = WholeBody()
        self._inflater: Inflater | None = None
        self._refused = False

    def head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The status line and the headers have come."""
        content_type, encoding = "", b"identity"
        for name, value in headers:
            if len(name) not in _LENGTHS_READ:
                continue
            if name.lower() == b"content-type":
                content_type = value.partition(b";")[0].strip().lower().decode("latin-1")
            elif name.lower() == b"content-encoding":
                encoding = value.strip().lower()
        timeline = self._progress.timeline
        timeline.http_status = status
        self._refused = not 200 <= status < 300
        if self._refused:
            self._body = WholeBody(limit_bytes=MAX_ERROR_BYTES)
        else:
            timeline.streamed = content_type in STREAM_TYPES
            self._body = body_of(content_type)
        if encoding in (b"gzip", b"x-gzip", b"deflate"):
            self._inflater = Inflater()
        elif encoding != b"identity":
            self._body = UnreadBody()

    def feed(self, data: bytes, at_ns: int) -> None:
        """Bytes of the body have come."""
        try:
            if self._inflater is not None:
                data = self._inflater.feed(data)
            self._take(self._body.feed(data), at_ns)
        except Exception as error:  # noqa: BLE001 - reading is a guest: traffic goes on without it
            self._give_up(error)

    def fail(self, message: str) -> None:
        """There will be no answer, or no more of it, because of what `message` says."""
        self._progress.fail(message)

    def end(self, at_ns: int, ending: Ending) -> None:
        """No more bytes will come: write the timeline's end."""
        try:
            self._finish(at_ns)
        except Exception as error:  # noqa: BLE001 - as in feed
            self._give_up(error)
        self._progress.close(at_ns, ending)

    def _take(self, objects: list[dict[str, object]], at_ns: int) -> None:
        progress, body = self._progress, self._body
        for value in objects:
            self._absorb(progress, value, at_ns)
        progress.finished = progress.finished or body.ended
        progress.unreadable = progress.unreadable or body.lost > 0

    def _finish(self, at_ns: int) -> None:
        objects = self._body.finish()
        if not self._refused:
            self._take(objects, at_ns)
            return
        status = self._progress.timeline.http_status
        found = error_text(objects[0]) if objects else None
        # A body that is not understood is not kept: it may repeat the prompt.
        self._progress.fail(found or f"the backend answered with HTTP status {status}")

    def _give_up(self, error: Exception) -> None:
        logger.warning("a response could not be read: %s; it has no tokens", type(error).__name__)
        self._progress.unreadable = True
        self._body = UnreadBody()
