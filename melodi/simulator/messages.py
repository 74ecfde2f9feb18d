"""Anthropic's `/v1/messages` as Ollama and vLLM serve it."""

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from melodi.simulator.faults import EngineFailed
from melodi.simulator.jobs import Truth
from melodi.simulator.openai import Answer, OpenAIApi, Reply
from melodi.simulator.openai_bodies import AnswerBody, ContentPart, Message
from melodi.simulator.replies import StreamReply, WholeReply
from melodi.simulator.service import finish_or_refuse, json_response, named_event, parse, read_json
from melodi.simulator.text import tokenize

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessagesBody(AnswerBody):
    """`/v1/messages`."""

    messages: list[Message]
    system: str | list[ContentPart] = ""
    max_tokens: int

    def tokens(self) -> tuple[int, ...]:
        system = Message(role="system", content=self.system)
        turns = [system, *self.messages] if self.system else self.messages
        return tokenize("".join(f"{one.role}: {one.text()}\n" for one in turns) + "assistant:")


class MessagesApi:
    """The route, on the engine of the OpenAI routes."""

    def __init__(self, api: OpenAIApi):
        self._api = api

    def routes(self) -> list[Route]:
        return [Route("/v1/messages", self.messages, methods=["POST"])]

    async def messages(self, request: Request) -> Reply:
        body = parse(await read_json(request), MessagesBody)
        answer = self._api.answer(request, body, body.tokens(), limit=body.max_tokens, prefix="msg")
        if body.stream:
            headers = {"content-type": "text/event-stream; charset=utf-8"}
            return StreamReply(answer.generation, _events(answer), headers=headers)

        async def finish() -> Response:
            text = await finish_or_refuse(answer.generation)
            content = [{"type": "text", "text": text}]
            return json_response(_message(answer, content, ended=True))

        return WholeReply(answer.generation, finish())


def _message(answer: Answer, content: list[dict[str, Any]], *, ended: bool) -> dict[str, Any]:
    usage = _usage(answer.generation.truth)
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": STOP_REASONS[answer.reason] if ended else None,
        "stop_sequence": None,
        "usage": usage if ended else {**usage, "output_tokens": 0},
    }


async def _events(answer: Answer) -> AsyncIterator[bytes]:
    begun = False
    try:
        async for piece in answer.generation.tokens():
            if not begun:
                begun = True
                yield named_event("message_start", message=_message(answer, [], ended=False))
                block = {"type": "text", "text": ""}
                yield named_event("content_block_start", index=0, content_block=block)
            delta = {"type": "text_delta", "text": piece}
            yield named_event("content_block_delta", index=0, delta=delta)
    except EngineFailed as error:
        yield named_event("error", error={"type": "api_error", "message": str(error)})
        return
    yield named_event("content_block_stop", index=0)
    end = {"stop_reason": STOP_REASONS[answer.reason], "stop_sequence": None}
    yield named_event("message_delta", delta=end, usage=_usage(answer.generation.truth))
    yield named_event("message_stop")


def _usage(truth: Truth) -> dict[str, int]:
    """Input tokens are told without those that were cached."""
    return {
        "input_tokens": truth.prompt_tokens - truth.cached_tokens,
        "cache_read_input_tokens": truth.cached_tokens,
        "output_tokens": truth.output_tokens,
    }
