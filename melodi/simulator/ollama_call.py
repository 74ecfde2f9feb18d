"""One request to Ollama's own API, and the objects that answer it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

from melodi.simulator import ollama_models as models
from melodi.simulator.engine import Generation
from melodi.simulator.faults import EngineFailed
from melodi.simulator.service import Service
from melodi.simulator.text import tokenize


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as Ollama's API sees it."""

    service: Service
    model: str
    """As the client wrote it."""
    chat: bool
    began_ns: int
    context: tuple[int, ...] | None = None
    """Tokens of the prompt, which `/api/generate` hands back with those of the answer."""
    tool: str | None = None
    """What the answer calls instead of saying something."""

    def line(self, text: str, **more: object) -> dict[str, Any]:
        """One object of the stream."""
        content = {"message": {"role": "assistant", "content": text}} if self.chat else None
        return {
            "model": self.model,
            "created_at": models.timestamp(self.service.clock.wall_ns()),
            **(content or {"response": text}),
            "done": False,
            **more,
        }

    def last(self, text: str, generation: Generation, *, answer: str) -> dict[str, Any]:
        """The object that ends an answer; `text` is what it carries, `answer` all that was said."""
        more: dict[str, object] = {"done": True, "done_reason": generation.truth.reason}
        if self.context is not None:
            more["context"] = [*self.context, *tokenize(answer)]
        return self.line(text, **more, **self.metrics(generation))

    def whole(self, text: str, generation: Generation) -> dict[str, Any]:
        """The one object of an answer that is not streamed."""
        last = self.last("" if self.tool else text, generation, answer=text)
        return last | self._called(text) if self.tool else last

    def metrics(self, generation: Generation) -> dict[str, int]:
        """Durations and counts; what is 0 is left out."""
        truth = generation.truth
        first_ns = truth.first_token_ns or truth.end_ns or 0
        metrics = {
            "total_duration": self.service.clock.monotonic_ns() - self.began_ns,
            "load_duration": max(1, truth.ready_ns - self.began_ns),
            "prompt_eval_count": truth.prompt_tokens,
            "prompt_eval_duration": _whole_us(first_ns - (truth.service_start_ns or first_ns)),
            "eval_count": truth.output_tokens,
            "eval_duration": _whole_us((truth.end_ns or first_ns) - first_ns),
        }
        return {name: value for name, value in metrics.items() if value}

    def _called(self, text: str) -> dict[str, Any]:
        """The message that calls the tool, with `text` as its arguments."""
        function = {"name": self.tool, "arguments": orjson.loads(text)}
        calls = [{"function": function}]
        return {"message": {"role": "assistant", "content": "", "tool_calls": calls}}

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """A line per token and a last one with the counts; an error line where the engine fails."""
        pieces = []
        try:
            async for piece in generation.tokens():
                pieces.append(piece)
                if self.tool is None:
                    yield orjson.dumps(self.line(piece)) + b"\n"
        except EngineFailed as error:
            yield orjson.dumps({"error": str(error)}) + b"\n"
        else:
            if self.tool is not None:
                # A call is held back until it can be read whole.
                yield orjson.dumps(self.line("") | self._called("".join(pieces))) + b"\n"
            last = self.last("", generation, answer="".join(pieces))
            yield orjson.dumps(last) + b"\n"


def _whole_us(ns: int) -> int:
    return ns - ns % 1_000
