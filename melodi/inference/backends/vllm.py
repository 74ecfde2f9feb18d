"""vLLM: OpenAI's API, and the engine's own times for each request where it is set to tell them."""

from collections.abc import Mapping

from melodi.inference.backends import openai
from melodi.inference.backends.base import Dialect, Progress, as_object, number
from melodi.inference.timeline import RequestTimeline

MS_PER_SECOND = 1000


def absorb(progress: Progress, event: Mapping[str, object], at_ns: int) -> None:
    """One chunk of a stream, or the one object of a plain answer."""
    openai.absorb(progress, event, at_ns)
    if metrics := event.get("metrics"):
        absorb_metrics(progress.timeline, as_object(metrics))


def absorb_metrics(timeline: RequestTimeline, metrics: Mapping[str, object]) -> None:
    """vLLM's per-request metrics: time to first token counts from the end of queueing, and the
    generation time from the first token to the last (its docs, features/per_request_metrics)."""
    timeline.queue_seconds = _seconds(metrics.get("queue_time_ms"))
    timeline.prefill_seconds = _seconds(metrics.get("time_to_first_token_ms"))
    timeline.decode_seconds = _seconds(metrics.get("generation_time_ms"))


def _seconds(milliseconds: object) -> float | None:
    value = number(milliseconds)
    return None if value is None else value / MS_PER_SECOND


DIALECTS = {
    "/v1/chat/completions": Dialect(openai.read_chat, absorb),
    "/v1/completions": Dialect(openai.read_completion, absorb),
    "/v1/embeddings": Dialect(openai.read_embedding, absorb),
}
