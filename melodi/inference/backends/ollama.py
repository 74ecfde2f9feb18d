"""Ollama's native API: durations in its last object, streams unless told not to."""

from collections.abc import Mapping

from melodi.clock import NS_PER_SECOND
from melodi.inference.backends.base import (
    Dialect,
    Progress,
    RequestFacts,
    as_object,
    as_text,
    conversation_text,
    count,
    plain_options,
)
from melodi.inference.backends.refusals import error_text
from melodi.inference.timeline import RequestTimeline

OPTION_NAMES = frozenset({
    "num_ctx", "num_batch", "num_gpu", "num_thread", "num_keep", "num_predict", "seed", "top_k",
    "top_p", "min_p", "typical_p", "temperature", "repeat_last_n", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "draft_num_predict",
})  # fmt: skip
FIELD_NAMES = frozenset(
    {"think", "raw", "truncate", "shift", "keep_alive", "logprobs", "top_logprobs"}
)
HIDDEN_NAMES = ("thinking", "tool_calls")


def model_name(name: object) -> str | None:
    """The model as asked for, without the tag that Ollama adds where none is given."""
    return as_text(name).removesuffix(":latest") or None


def read_generate(body: Mapping[str, object]) -> RequestFacts:
    """POST /api/generate; an empty prompt only loads the model."""
    prompt = as_text(body.get("prompt"))
    return _facts(body, prompt, load_only=not prompt)


def read_chat(body: Mapping[str, object]) -> RequestFacts:
    """POST /api/chat; no messages only load the model."""
    return _facts(body, conversation_text(body.get("messages")), load_only=not body.get("messages"))


def read_embed(body: Mapping[str, object]) -> RequestFacts:
    """POST /api/embed (`input`) and /api/embeddings (`prompt`), which never stream."""
    given = body.get("input", body.get("prompt"))
    texts = given if isinstance(given, list) else [given]
    return RequestFacts(
        model=model_name(body.get("model")),
        streamed=False,
        prompt="\n".join(as_text(text) for text in texts) or None,
        generation=_generation(body),
    )


def absorb(progress: Progress, event: Mapping[str, object], at_ns: int) -> None:
    """One line of a stream, or the one object of a plain answer."""
    error = error_text(event)
    if error is not None:
        progress.fail(error)
        return
    message = as_object(event.get("message"))
    text = as_text(event.get("response")) + as_text(message.get("content"))
    hidden = any(part.get(name) for part in (event, message) for name in HIDDEN_NAMES)
    progress.output(text, at_ns, hidden=hidden)
    if event.get("done") is True:
        progress.finished = True
        progress.timeline.finish_reason = as_text(event.get("done_reason")) or None
    if "total_duration" in event:
        _absorb_metrics(progress.timeline, event)


def _facts(body: Mapping[str, object], prompt: str | None, *, load_only: bool) -> RequestFacts:
    return RequestFacts(
        model=model_name(body.get("model")),
        streamed=body.get("stream") is not False,
        prompt=prompt,
        generation=_generation(body),
        load_only=load_only,
    )


def _generation(body: Mapping[str, object]) -> dict[str, object]:
    options = plain_options(as_object(body.get("options")), OPTION_NAMES)
    return options | plain_options(body, FIELD_NAMES)


def _absorb_metrics(timeline: RequestTimeline, event: Mapping[str, object]) -> None:
    """Counts and durations; a field that is 0 is absent on the wire, so absence says nothing."""
    timeline.input_tokens = count(event.get("prompt_eval_count"))
    timeline.output_tokens = count(event.get("eval_count"))
    if timeline.input_tokens is not None or timeline.output_tokens is not None:
        timeline.tokens_source = "native"
    total_ns = count(event.get("total_duration"))
    load_ns = count(event.get("load_duration"))
    prefill_ns = count(event.get("prompt_eval_duration"))
    decode_ns = count(event.get("eval_duration"))
    timeline.load_seconds = _seconds(load_ns)
    timeline.prefill_seconds = _seconds(prefill_ns)
    timeline.decode_seconds = _seconds(decode_ns)
    if None not in (total_ns, load_ns, prefill_ns, decode_ns):
        busy_ns = (load_ns or 0) + (prefill_ns or 0) + (decode_ns or 0)
        timeline.queue_seconds = _seconds(max(0, (total_ns or 0) - busy_ns))


def _seconds(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns / NS_PER_SECOND


DIALECTS = {
    "/api/generate": Dialect(read_generate, absorb),
    "/api/chat": Dialect(read_chat, absorb),
    "/api/embed": Dialect(read_embed, absorb),
    "/api/embeddings": Dialect(read_embed, absorb),
}
