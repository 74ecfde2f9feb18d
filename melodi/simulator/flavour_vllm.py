"""OpenAI's API in vLLM's wording."""

from collections.abc import AsyncIterator
from typing import Any

from melodi.clock import NS_PER_SECOND
from melodi.simulator.jobs import Truth
from melodi.simulator.openai import Answer
from melodi.simulator.prefix import BLOCK_TOKENS
from melodi.simulator.service import Refused, Service

VERSION = "0.32.0"
FINGERPRINT = f"vllm-{VERSION}-simulated"

_ERROR_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}


class VllmFlavour:
    """Ids from the client, cached tokens in the usage, integers as error codes."""

    owner = "vllm"

    def __init__(self, service: Service):
        self._service = service

    def find_model(self, name: str) -> str:
        """Left out, `model` means the first one served."""
        served = self._service.settings.models
        if not name:
            return served[0]
        if name not in served:
            raise Refused(404, f"The model `{name}` does not exist.", param="model")
        return name

    def context_room(self, prompt_tokens: int, limit: int | None) -> int:
        longest = self._service.settings.context_tokens
        room = longest - prompt_tokens
        if room < 1:
            message = f"the prompt has {prompt_tokens} tokens; send fewer than {longest}"
            raise Refused(400, message, param="input_tokens")
        if limit is not None and limit > room:
            message = f"{prompt_tokens} prompt tokens leave room for {room}; ask for no more"
            raise Refused(400, message, param="max_tokens")
        return room if limit is None else limit

    def new_id(self, prefix: str, wanted: str | None) -> str:
        base = wanted or self._service.random_hex()
        return f"{prefix}-{base}-0" if prefix == "cmpl" else f"{prefix}-{base}"

    def whole(self, answer: Answer, text: str) -> dict[str, Any]:
        truth = answer.generation.truth
        if answer.chat:
            message: dict[str, Any] = {
                "role": "assistant",
                "content": text,
                "refusal": None,
                "reasoning": None,
            }
            message |= {"tool_calls": []}
            if answer.tool is not None:
                message |= {"content": None, "tool_calls": [answer.call(text)]}
            content: dict[str, Any] = {"message": message}
        else:
            content = {"text": text}
        choice = _choice(content, reason=answer.reason)
        return {
            **answer.envelope([choice], streamed=False),
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": self.usage(truth, truth.output_tokens),
            "metrics": self._metrics(truth),
        }

    async def events(self, answer: Answer) -> AsyncIterator[dict[str, Any]]:
        emitted = 0
        async for piece in answer.generation.tokens():
            if answer.chat and not emitted:
                role = {"delta": {"role": "assistant", "content": ""}}
                yield self._event(answer, _choice(role, reason=None), emitted)
            emitted += 1
            reason = answer.reason if emitted == answer.tokens else None
            content = {"delta": _delta(answer, piece, emitted)} if answer.chat else {"text": piece}
            event = self._event(answer, _choice(content, reason=reason), emitted)
            if reason and not answer.usage:
                event["system_fingerprint"] = FINGERPRINT
            yield event
        if answer.usage:
            truth = answer.generation.truth
            last = answer.envelope([], streamed=True)
            last["system_fingerprint"] = FINGERPRINT
            last["usage"] = self.usage(truth, emitted)
            if self._service.settings.request_metrics:
                last["metrics"] = self._metrics(truth)
            yield last

    def usage(self, truth: Truth, output_tokens: int) -> dict[str, Any]:
        full_blocks = truth.prompt_tokens // BLOCK_TOKENS * BLOCK_TOKENS
        return {
            "prompt_tokens": truth.prompt_tokens,
            "total_tokens": truth.prompt_tokens + output_tokens,
            "completion_tokens": output_tokens,
            "prompt_tokens_details": {
                "cached_tokens": truth.cached_tokens,
                "created_cache_tokens": full_blocks - truth.cached_tokens,
                "multimodal_tokens": None,
            },
            "completion_tokens_details": None,
        }

    def error(self, refused: Refused) -> dict[str, Any]:
        kind = refused.error_type or _ERROR_TYPES.get(refused.status, "InternalServerError")
        return {
            "error": {
                "message": str(refused),
                "type": kind,
                "param": refused.param,
                "code": refused.status,
            }
        }

    def _event(self, answer: Answer, choice: dict[str, Any], emitted: int) -> dict[str, Any]:
        event = answer.envelope([choice], streamed=True)
        if answer.usage and answer.running_usage:
            event["usage"] = self.usage(answer.generation.truth, emitted)
        return event

    def _metrics(self, truth: Truth) -> dict[str, Any] | None:
        """`metrics` of one request, where the settings have them switched on."""
        times = (truth.service_start_ns, truth.first_token_ns, truth.end_ns)
        start_ns, first_ns, end_ns = times
        if not self._service.settings.request_metrics:
            return None
        if start_ns is None or first_ns is None or end_ns is None:
            return None
        gaps = truth.output_tokens - 1
        return {
            "time_to_first_token_ms": (first_ns - truth.arrival_ns) / 1e6,
            "generation_time_ms": (end_ns - start_ns) / 1e6,
            "queue_time_ms": (start_ns - truth.arrival_ns) / 1e6,
            "mean_itl_ms": (end_ns - first_ns) / gaps / 1e6 if gaps else None,
            "tokens_per_second": truth.output_tokens * NS_PER_SECOND / (end_ns - start_ns),
            "speculative_decoding": None,
        }


def _delta(answer: Answer, piece: str, emitted: int) -> dict[str, Any]:
    """A piece of what is said, or of a tool's arguments; the first names the tool."""
    if answer.tool is None:
        return {"content": piece}
    if emitted == 1:
        return {"tool_calls": [{"index": 0, **answer.call(piece)}]}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _choice(content: dict[str, Any], *, reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason}
    if reason:
        choice["stop_reason"] = None
    return {**choice, "token_ids": None}
