"""OpenAI's /v1/responses: typed events, with the whole response in the first and the last."""

from collections.abc import Mapping

from melodi.inference.backends.base import (
    Dialect,
    Progress,
    RequestFacts,
    as_object,
    as_objects,
    as_text,
    content_text,
    conversation_text,
    count,
)
from melodi.inference.backends.openai import facts
from melodi.inference.backends.refusals import error_text

LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})


def read_request(body: Mapping[str, object]) -> RequestFacts:
    """POST /v1/responses: `input` is a text or a conversation."""
    given = body.get("input")
    return facts(body, given if isinstance(given, str) else conversation_text(given))


def absorb(progress: Progress, event: Mapping[str, object], at_ns: int) -> None:
    """One event of a stream, or the one object of a plain answer."""
    kind = as_text(event.get("type"))
    if kind == "response.output_text.delta":
        progress.output(as_text(event.get("delta")), at_ns)
    elif kind.endswith(".delta"):
        progress.output("", at_ns, hidden=True)
    elif kind == "error":
        progress.fail(as_text(event.get("message")) or error_text(event) or "unnamed error")
    elif kind in LAST_EVENTS:
        _absorb_response(progress, as_object(event.get("response")))
    elif not kind:
        for item in as_objects(event.get("output")):
            progress.output(content_text(item.get("content")), at_ns)
        _absorb_response(progress, event)


def _absorb_response(progress: Progress, response: Mapping[str, object]) -> None:
    error = error_text(response)
    if error is not None:
        progress.fail(error)
        return
    timeline = progress.timeline
    timeline.backend_id = as_text(response.get("id")) or None
    timeline.finish_reason = (
        as_text(as_object(response.get("incomplete_details")).get("reason"))
        or as_text(response.get("status"))
        or None
    )
    progress.finished = True
    usage = as_object(response.get("usage"))
    timeline.input_tokens = count(usage.get("input_tokens"))
    timeline.output_tokens = count(usage.get("output_tokens"))
    if timeline.input_tokens is not None or timeline.output_tokens is not None:
        timeline.tokens_source = "usage"
    details = as_object(usage.get("input_tokens_details"))
    timeline.cached_input_tokens = count(details.get("cached_tokens"))


DIALECTS = {"/v1/responses": Dialect(read_request, absorb)}
