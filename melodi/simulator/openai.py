"""OpenAI's API as vLLM and Ollama serve it; what differs between them is their flavour."""

from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from struct import pack
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from melodi.clock import NS_PER_SECOND
from melodi.simulator.engine import Generation
from melodi.simulator.faults import EngineFailed
from melodi.simulator.jobs import Submission, Truth
from melodi.simulator.openai_bodies import AnswerBody, ChatBody, CompletionBody, EmbeddingBody
from melodi.simulator.replies import StreamReply, WholeReply
from melodi.simulator.service import (
    Refused,
    Service,
    embed,
    finish_or_refuse,
    json_response,
    parse,
    read_json,
)
from melodi.simulator.text import tokenize

Reply = Response | StreamReply | WholeReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer as it is told to the client."""

    id: str
    model: str
    created: int
    chat: bool
    generation: Generation
    tokens: int
    """How many it will have."""
    reason: str
    usage: bool
    """Whether a stream ends with the usage."""
    running_usage: bool
    """Whether every event of a stream carries the usage so far."""
    tool: str | None = None
    """What the answer calls instead of saying something."""

    def call(self, arguments: str) -> dict[str, Any]:
        """The call of the tool."""
        function = {"name": self.tool, "arguments": arguments}
        return {"id": f"call_{self.id}", "type": "function", "function": function}

    def envelope(self, choices: list[dict[str, Any]], *, streamed: bool) -> dict[str, Any]:
        """What surrounds the choices."""
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if streamed else "chat.completion"
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


class Flavour(Protocol):
    """How one server words what both say."""

    owner: str

    def find_model(self, name: str) -> str:
        """The served model that `name` means; Refused with 404 where there is none."""
        ...

    def context_room(self, prompt_tokens: int, limit: int | None) -> int | None:
        """The most output tokens an answer may have; Refused where that cannot be."""
        ...

    def new_id(self, prefix: str, wanted: str | None) -> str:
        """An id for an answer; `wanted` is the client's X-Request-Id."""
        ...

    def whole(self, answer: Answer, text: str) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...

    def events(self, answer: Answer) -> AsyncIterator[dict[str, Any]]:
        """The events of a stream, without the `[DONE]` at its end."""
        ...

    def usage(self, truth: Truth, output_tokens: int) -> dict[str, Any]:
        """The usage object."""
        ...

    def error(self, refused: Refused) -> dict[str, Any]:
        """The body of an error."""
        ...


class OpenAIApi:
    """The routes under `/v1`."""

    def __init__(self, service: Service, flavour: Flavour):
        self._service = service
        self._flavour = flavour

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.models),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:  # noqa: ARG002 - a route
        settings = self._service.settings
        data = [
            {
                "id": model,
                "object": "model",
                "created": self._created(),
                "owned_by": self._flavour.owner,
                "root": model,
                "max_model_len": settings.context_tokens,
            }
            for model in settings.models
        ]
        return json_response({"object": "list", "data": data})

    async def chat(self, request: Request) -> Reply:
        body = parse(await read_json(request), ChatBody)
        limit = body.max_completion_tokens or body.max_tokens
        answer = self.answer(request, body, body.tokens(), limit=limit, prefix="chatcmpl")
        return self._reply(answer, streamed=body.stream)

    async def complete(self, request: Request) -> Reply:
        body = parse(await read_json(request), CompletionBody)
        answer = self.answer(request, body, body.tokens(), limit=body.max_tokens, prefix="cmpl")
        return self._reply(answer, streamed=body.stream)

    async def embeddings(self, request: Request) -> Reply:
        body = parse(await read_json(request), EmbeddingBody)
        inputs = [body.input] if isinstance(body.input, str) else body.input
        prompt = tuple(token for text in inputs for token in tokenize(text))
        self._flavour.context_room(len(prompt), None)
        submission = self._submission(body.model, prompt)
        generation = self._service.generate(submission)
        answer_id = self._flavour.new_id("embd", request.headers.get("x-request-id"))
        self._service.name(answer_id, generation.id)

        async def finish() -> Response:
            await finish_or_refuse(generation)
            data = [
                {"object": "embedding", "index": index, "embedding": _vector(body, text)}
                for index, text in enumerate(inputs)
            ]
            usage = self._flavour.usage(generation.truth, 0)
            head = {"id": answer_id, "object": "list", "created": self._created()}
            return json_response({**head, "model": body.model, "data": data, "usage": usage})

        return WholeReply(generation, finish())

    def _submission(self, model: str, prompt: tuple[int, ...]) -> Submission:
        found = self._flavour.find_model(model)
        if not prompt:
            raise Refused(400, "the prompt is empty; send at least one token", param="prompt")
        context_tokens = self._service.settings.context_tokens
        return Submission(model=found, context_tokens=context_tokens, prompt=prompt)

    def answer(
        self,
        request: Request,
        body: AnswerBody,
        prompt: tuple[int, ...],
        *,
        limit: int | None,
        prefix: str,
    ) -> Answer:
        """Begin an answer to `prompt` of at most `limit` tokens; Refused where that cannot be."""
        if limit is not None and limit < 1:
            raise Refused(400, "max_tokens must be at least 1", param="max_tokens")
        submission = self._submission(body.model, prompt)
        submission = self._service.with_answer(
            submission,
            limit=self._flavour.context_room(len(prompt), limit),
            at_least=body.min_tokens,
            ignore_end=body.ignore_eos,
        )
        calls = body.tool is not None
        generation = self._service.generate(submission, json=calls or body.json_text)
        answer_id = self._flavour.new_id(prefix, request.headers.get("x-request-id"))
        self._service.name(answer_id, generation.id)
        return Answer(
            id=answer_id,
            model=body.model or submission.model,
            created=self._created(),
            chat=prefix == "chatcmpl",
            generation=generation,
            tokens=submission.output_tokens,
            reason="tool_calls" if calls else submission.finish_reason,
            tool=body.tool,
            usage=body.stream_options.include_usage,
            running_usage=body.stream_options.continuous_usage_stats,
        )

    def _reply(self, answer: Answer, *, streamed: bool) -> Reply:
        if streamed:
            headers = {"content-type": "text/event-stream; charset=utf-8"}
            return StreamReply(answer.generation, self._sse(answer), headers=headers)

        async def finish() -> Response:
            text = await finish_or_refuse(answer.generation)
            return json_response(self._flavour.whole(answer, text))

        return WholeReply(answer.generation, finish())

    async def _sse(self, answer: Answer) -> AsyncIterator[bytes]:
        try:
            async for event in self._flavour.events(answer):
                yield b"data: " + orjson.dumps(event) + b"\n\n"
        except EngineFailed as error:
            refused = self._flavour.error(Refused(500, str(error)))
            yield b"data: " + orjson.dumps(refused) + b"\n\n"
        yield b"data: [DONE]\n\n"

    def _created(self) -> int:
        return self._service.clock.wall_ns() // NS_PER_SECOND


def _vector(body: EmbeddingBody, text: str) -> list[float] | str:
    vector = embed(text)
    if body.encoding_format == "float":
        return vector
    return b64encode(pack(f"<{len(vector)}f", *vector)).decode()
