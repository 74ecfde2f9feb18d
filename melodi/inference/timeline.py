"""What is seen of one request as it runs; gateway and dispatch fill it, the books read it."""

from array import array
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Protocol

from melodi.energy.record import Status


@dataclass(slots=True, kw_only=True)
class RequestTimeline:
    """One request: identity, when things happened (monotonic ns), what it used and gave.

    Filled by one task at a time. Unknown is None; `chunk_ns` holds the arrival of every chunk
    of a stream that carried text (chunks are not tokens).
    """

    # known when it begins
    id: str
    backend: str
    backend_kind: str
    model: str | None = None
    wall_ns: int
    """Wall time at `sent_ns`."""
    sent_ns: int
    scheduled_wall_ns: int | None = None
    streamed: bool | None = None
    dispatched: bool = False
    """MELODI itself sent it, so its prompt is the owner's own; a gateway's client cannot say so."""
    campaign: str | None = None
    task: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    prompt: str | None = None
    """The prompt's text for hashing and, if the settings say so, storing."""
    generation: dict[str, object] = field(default_factory=dict)
    attempt: int = 1
    load_only: bool = False
    """It only loads or unloads a model: its joules are counted, but it has no record."""
    # seen as it runs
    reached: bool = False
    """The request was written to the backend, which may have worked on it."""
    overhead_ns: int | None = None
    """What the gateway itself took: from having the request to its having been written to the
    backend, and from the answer's head to its having been sent on."""
    first_token_ns: int | None = None
    chunk_ns: "array[int]" = field(default_factory=lambda: array("q"))
    http_status: int | None = None
    backend_id: str | None = None
    """The id that the backend's response body carries."""
    backend_version: str | None = None
    model_digest: str | None = None
    response: str | None = None
    # known when it ends
    end_ns: int | None = None
    status: Status | None = None
    finish_reason: str | None = None
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    tokens_source: str | None = None
    """`usage` (OpenAI's usage object), `native` (Ollama's counts)."""
    queue_seconds: float | None = None
    """Waiting before service, as the backend tells it; None where it does not."""
    load_seconds: float | None = None
    """Model load that this request waited for, as the backend tells it."""
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    """Prefill and decode as the backend itself reports them; None where it does not."""

    def __reduce__(self) -> tuple[object, ...]:
        # A third of what copying it field by field, name by name, would take.
        return _again, _values_of(self)


_NAMES = tuple(one.name for one in fields(RequestTimeline))
_values_of = attrgetter(*_NAMES)


def _again(*values: object) -> RequestTimeline:
    timeline = RequestTimeline.__new__(RequestTimeline)
    for name, value in zip(_NAMES, values, strict=True):
        setattr(timeline, name, value)
    return timeline


class Recorder(Protocol):
    """Takes timelines at their begin and end; never waits, never raises."""

    def begin(self, timeline: RequestTimeline) -> None: ...

    def end(self, timeline: RequestTimeline) -> None: ...
