"""OpenAI's API in Ollama's wording."""

from collections.abc import AsyncIterator
from typing import Any

from melodi.simulator.jobs import Truth
from melodi.simulator.ollama_library import find_model
from melodi.simulator.openai import Answer
from melodi.simulator.service import Refused, Service

FINGERPRINT = "fp_ollama"

_ERROR_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


class OllamaFlavour:
    """Ids of three digits that come again, a bare usage, no limit but the model's."""

    owner = "library"

    def __init__(self, service: Service):
        self._service = service

    def find_model(self, name: str) -> str:
        return find_model(self._service, name)

    def context_room(self, prompt_tokens: int, limit: int | None) -> int | None:  # noqa: ARG002
        """Ollama shifts the context rather than refuse."""
        return limit

    def new_id(self, prefix: str, wanted: str | None) -> str:  # noqa: ARG002 - not looked at
        return f"{prefix}-{int(self._service.random_hex(), 16) % 1000}"

    def whole(self, answer: Answer, text: str) -> dict[str, Any]:
        truth = answer.generation.truth
        if answer.chat:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if answer.tool is not None:
                message |= {"content": "", "tool_calls": [{"index": 0, **answer.call(text)}]}
            content: dict[str, Any] = {"message": message}
        else:
            content = {"text": text}
        choice = {"index": 0, **content, "finish_reason": answer.reason}
        return {
            **answer.envelope([choice], streamed=False),
            "system_fingerprint": FINGERPRINT,
            "usage": self.usage(truth, truth.output_tokens),
        }

    async def events(self, answer: Answer) -> AsyncIterator[dict[str, Any]]:
        arguments = ""
        async for piece in answer.generation.tokens():
            if answer.tool is None:
                yield self._event(answer, piece, reason=None)
            # Ollama holds a call back until it can read all of it.
            arguments += piece
        if answer.tool is not None:
            yield self._event(answer, "", reason=None, call=answer.call(arguments))
        yield self._event(answer, "", reason=answer.reason)
        if answer.usage:
            truth = answer.generation.truth
            last = answer.envelope([], streamed=True)
            last["system_fingerprint"] = FINGERPRINT
            last["usage"] = self.usage(truth, truth.output_tokens)
            yield last

    def usage(self, truth: Truth, output_tokens: int) -> dict[str, Any]:
        return _usage(truth.prompt_tokens, output_tokens)

    def error(self, refused: Refused) -> dict[str, Any]:
        kind = _ERROR_TYPES.get(refused.status, "api_error")
        return {"error": {"message": str(refused), "type": kind, "param": None, "code": None}}

    def _event(
        self, answer: Answer, piece: str, *, reason: str | None, call: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if answer.chat:
            delta: dict[str, Any] = {"role": "assistant", "content": piece}
            if call is not None:
                delta["tool_calls"] = [{"index": 0, **call}]
            content: dict[str, Any] = {"delta": delta}
        else:
            content = {"text": piece}
        choice = {"index": 0, **content, "finish_reason": reason}
        event = answer.envelope([choice], streamed=True)
        event["system_fingerprint"] = FINGERPRINT
        if answer.usage and not answer.chat:
            event["usage"] = _usage(0, 0)
        return event


def _usage(prompt_tokens: int, output_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }
