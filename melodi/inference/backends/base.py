"""What every kind of backend shares: reading requests, and what is seen of a response."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum

from melodi.energy.record import Status
from melodi.inference.backends.refusals import without_quotations
from melodi.inference.timeline import RequestTimeline

MAX_ERROR_CHARS = 2000
MAX_OPTION_CHARS = 100
MAX_COUNT = 2**53
"""Counts from here on are no counts, and no database or JSON reader holds them all exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What a request's body asks for."""

    model: str | None = None
    streamed: bool | None = None
    prompt: str | None = None
    generation: dict[str, object] = field(default_factory=dict)
    load_only: bool = False
    """True where it only loads or unloads a model, so that there is no prompt to charge."""


class Ending(StrEnum):
    """How the bytes of a response ended."""

    CLEAN = "clean"
    CUT = "cut"
    LEFT = "left"
    """The client went away."""


class Progress:
    """What has been seen of one response, written into its timeline as it comes."""

    def __init__(self, timeline: RequestTimeline) -> None:
        self.timeline = timeline
        self.finished = False
        """The backend has said that this was all."""
        self.unreadable = False
        """Something came that could not be read: what is missing may have been in it."""
        self._texts: list[str] = []

    def output(self, text: str, at_ns: int, *, hidden: bool = False) -> None:
        """Generated text has come; `hidden`: thinking or a tool call, which is no answer's text
        and was generated all the same."""
        if self.timeline.streamed and (text or hidden):
            self.timeline.chunk_ns.append(at_ns)
            if self.timeline.first_token_ns is None:
                self.timeline.first_token_ns = at_ns
        if text:
            self._texts.append(text)

    def fail(self, message: str) -> None:
        """The backend, or the way to it, failed; the first message stays."""
        if self.timeline.error is None:
            said = without_quotations(message).strip() or "unnamed error"
            self.timeline.error = said[:MAX_ERROR_CHARS]

    def close(self, at_ns: int, ending: Ending) -> None:
        """Write how it ended: an error beats all, then the backend's own last word."""
        timeline = self.timeline
        timeline.end_ns = at_ns
        if self._texts:
            timeline.response = "".join(self._texts)
        if timeline.error is not None:
            timeline.status = Status.ERROR
        elif self.finished:
            timeline.status = Status.OK
        elif ending is Ending.LEFT:
            timeline.status = Status.CANCELLED
        elif ending is Ending.CLEAN and self.unreadable:
            timeline.status = Status.OK
        else:
            timeline.status = Status.INCOMPLETE


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one inference path is spoken."""

    read_request: Callable[[Mapping[str, object]], RequestFacts]
    absorb: Callable[[Progress, Mapping[str, object], int], None]
    """Takes one object of the response and the monotonic ns at which it came."""


def as_object(value: object) -> Mapping[str, object]:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_objects(value: object) -> list[Mapping[str, object]]:
    """The JSON objects in `value` if it is an array, else none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_text(value: object) -> str:
    """`value` if it is text, else the empty string."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int | None:
    """`value` if it can be a count, else None."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_COUNT:
        return None
    return value


def number(value: object) -> float | None:
    """`value` if it is a number of 0 or more, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return float(value)


def plain_options(body: Mapping[str, object], names: Set[str]) -> dict[str, object]:
    """The named parameters that are numbers, truth values or short words: never a prompt's text."""
    options: dict[str, object] = {}
    for name, value in body.items():
        if name not in names:
            continue
        is_word = isinstance(value, str) and len(value) <= MAX_OPTION_CHARS
        if is_word or isinstance(value, int | float):
            options[name] = value
    return options


def content_text(content: object) -> str:
    """The text of a message's content: a string, or an array of parts of which some are text."""
    if isinstance(content, str):
        return content
    return "".join(as_text(part.get("text")) for part in as_objects(content))


def conversation_text(messages: object) -> str | None:
    """A conversation as one text; a lone message gives its bare content, so that one prompt has
    one text whichever way it is sent."""
    turns = as_objects(messages)
    if not turns:
        return None
    if len(turns) == 1:
        return content_text(turns[0].get("content"))
    return "\n".join(
        f"{as_text(turn.get('role'))}: {content_text(turn.get('content'))}" for turn in turns
    )
