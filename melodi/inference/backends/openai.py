"""OpenAI's completions, chat completions and embeddings, as vLLM, Ollama and others speak them."""

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
    plain_options,
)
from melodi.inference.backends.refusals import error_text

OPTION_NAMES = frozenset({
    "max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens", "temperature",
    "top_p", "top_k", "min_p", "seed", "n", "best_of", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "ignore_eos", "logprobs", "top_logprobs", "reasoning_effort", "priority",
    "service_tier", "dimensions", "encoding_format", "echo",
})  # fmt: skip

HIDDEN_NAMES = frozenset({"reasoning", "reasoning_content", "tool_calls", "refusal"})
FAILED_REASONS = frozenset({"error", "abort"})


def read_chat(body: Mapping[str, object]) -> RequestFacts:
    """POST /v1/chat/completions."""
    return facts(body, conversation_text(body.get("messages")))


def read_completion(body: Mapping[str, object]) -> RequestFacts:
    """POST /v1/completions: a prompt, or several; token ids have no text."""
    return facts(body, _joined(body.get("prompt")))


def read_embedding(body: Mapping[str, object]) -> RequestFacts:
    """POST /v1/embeddings."""
    return facts(body, _joined(body.get("input")))


def facts(body: Mapping[str, object], prompt: str | None) -> RequestFacts:
    """What all of OpenAI's requests share."""
    return RequestFacts(
        model=as_text(body.get("model")) or None,
        streamed=body.get("stream") is True,
        prompt=prompt or None,
        generation=plain_options(body, OPTION_NAMES),
    )


def absorb(progress: Progress, event: Mapping[str, object], at_ns: int) -> None:
    """One chunk of a stream, or the one object of a plain answer."""
    error = error_text(event)
    if error is not None:
        progress.fail(error)
        return
    timeline = progress.timeline
    timeline.backend_id = as_text(event.get("id")) or timeline.backend_id
    for choice in as_objects(event.get("choices")):
        _absorb_choice(progress, choice, at_ns)
    if usage := event.get("usage"):
        absorb_usage(progress, as_object(usage))


def absorb_usage(progress: Progress, usage: Mapping[str, object]) -> None:
    """Token counts, wherever in the answer they come; an object of zeros is a placeholder."""
    timeline = progress.timeline
    input_tokens = count(usage.get("prompt_tokens"))
    output_tokens = count(usage.get("completion_tokens"))
    if not input_tokens and not output_tokens:
        return
    timeline.input_tokens = input_tokens
    timeline.output_tokens = output_tokens
    details = as_object(usage.get("prompt_tokens_details"))
    timeline.cached_input_tokens = count(details.get("cached_tokens"))
    timeline.tokens_source = "usage"


def _absorb_choice(progress: Progress, choice: Mapping[str, object], at_ns: int) -> None:
    piece = as_object(choice.get("delta") or choice.get("message"))
    hidden = not HIDDEN_NAMES.isdisjoint(piece) and any(map(piece.get, HIDDEN_NAMES))
    text = as_text(choice.get("text")) or content_text(piece.get("content"))
    if choice.get("index"):
        text, hidden = "", hidden or bool(text)
    progress.output(text, at_ns, hidden=hidden)
    if reason := as_text(choice.get("finish_reason")):
        if reason in FAILED_REASONS:
            progress.fail(f"the backend gave up with finish_reason {reason}: see its log")
        progress.timeline.finish_reason = reason
        progress.finished = True


def _joined(value: object) -> str:
    texts = value if isinstance(value, list) else [value]
    return "\n".join(text for text in texts if isinstance(text, str))


DIALECTS = {
    "/v1/chat/completions": Dialect(read_chat, absorb),
    "/v1/completions": Dialect(read_completion, absorb),
    "/v1/embeddings": Dialect(read_embedding, absorb),
}
