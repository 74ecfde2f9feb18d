"""Anthropic's /v1/messages, as Ollama and vLLM speak it: input tokens first, output tokens last."""

from collections.abc import Mapping

from melodi.inference.backends.base import (
    Dialect,
    Progress,
    RequestFacts,
    as_object,
    as_text,
    content_text,
    conversation_text,
    count,
)
from melodi.inference.backends.openai import facts
from melodi.inference.backends.refusals import error_text
from melodi.inference.timeline import RequestTimeline


def read_request(body: Mapping[str, object]) -> RequestFacts:
    """POST /v1/messages."""
    return facts(body, conversation_text(body.get("messages")))


def absorb(progress: Progress, event: Mapping[str, object], at_ns: int) -> None:
    """One event of a stream, or the one object of a plain answer."""
    kind = as_text(event.get("type"))
    if kind == "content_block_delta":
        text = as_text(as_object(event.get("delta")).get("text"))
        progress.output(text, at_ns, hidden=not text)
    elif kind == "message_start":
        _absorb_message(progress.timeline, as_object(event.get("message")))
    elif kind == "message_delta":
        _absorb_end(progress.timeline, as_object(event.get("delta")), event)
    elif kind == "message_stop":
        progress.finished = True
    elif kind == "message":
        progress.output(content_text(event.get("content")), at_ns)
        _absorb_message(progress.timeline, event)
        _absorb_end(progress.timeline, event, event)
    elif kind == "error" or "error" in event:
        progress.fail(error_text(event) or "unnamed error")


def _absorb_message(timeline: RequestTimeline, message: Mapping[str, object]) -> None:
    timeline.backend_id = as_text(message.get("id")) or None
    usage = as_object(message.get("usage"))
    _absorb_input(timeline, usage)


def _absorb_end(
    timeline: RequestTimeline, delta: Mapping[str, object], event: Mapping[str, object]
) -> None:
    usage = as_object(event.get("usage"))
    timeline.finish_reason = as_text(delta.get("stop_reason")) or timeline.finish_reason
    _absorb_input(timeline, usage)
    output_tokens = count(usage.get("output_tokens"))
    if output_tokens is not None:
        timeline.output_tokens = output_tokens
        timeline.tokens_source = "usage"


def _absorb_input(timeline: RequestTimeline, usage: Mapping[str, object]) -> None:
    """Input tokens, which this API counts without the cached ones; 0 is a placeholder."""
    cached = count(usage.get("cache_read_input_tokens"))
    fresh = count(usage.get("input_tokens"))
    if fresh:
        timeline.input_tokens = fresh + (cached or 0)
        timeline.cached_input_tokens = cached
        timeline.tokens_source = "usage"


DIALECTS = {"/v1/messages": Dialect(read_request, absorb)}
