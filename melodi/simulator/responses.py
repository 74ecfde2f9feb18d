"""OpenAI's `/v1/responses` as Ollama and vLLM serve it."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from melodi.simulator.faults import EngineFailed
from melodi.simulator.openai import Answer, OpenAIApi, Reply
from melodi.simulator.openai_bodies import AnswerBody, Message
from melodi.simulator.replies import StreamReply, WholeReply
from melodi.simulator.service import finish_or_refuse, json_response, named_event, parse, read_json
from melodi.simulator.text import tokenize


class ResponsesBody(AnswerBody):
    """`/v1/responses`."""

    input: str | list[Message]
    instructions: str = ""
    max_output_tokens: int | None = None

    def tokens(self) -> tuple[int, ...]:
        given = self.input
        turns = [Message(role="user", content=given)] if isinstance(given, str) else given
        said = "".join(f"{one.role}: {one.text()}\n" for one in turns)
        return tokenize(f"{self.instructions}\n{said}assistant:")


class ResponsesApi:
    """The route, on the engine of the OpenAI routes."""

    def __init__(self, api: OpenAIApi):
        self._api = api

    def routes(self) -> list[Route]:
        return [Route("/v1/responses", self.responses, methods=["POST"])]

    async def responses(self, request: Request) -> Reply:
        body = parse(await read_json(request), ResponsesBody)
        answer = self._api.answer(
            request, body, body.tokens(), limit=body.max_output_tokens, prefix="resp"
        )
        if body.stream:
            headers = {"content-type": "text/event-stream; charset=utf-8"}
            return StreamReply(answer.generation, _events(answer), headers=headers)

        async def finish() -> Response:
            text = await finish_or_refuse(answer.generation)
            return json_response(_response(answer, text))

        return WholeReply(answer.generation, finish())


def _status(answer: Answer) -> str:
    return "incomplete" if answer.reason == "length" else "completed"


def _response(answer: Answer, text: str | None) -> dict[str, Any]:
    """The whole response; `text` None: it has only begun."""
    begun = text is None
    status = "in_progress" if begun else _status(answer)
    cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": answer.id,
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": cut,
        "model": answer.model,
        "output": [] if text is None else [_item(answer, text)],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None if begun else _usage(answer),
    }


def _item(answer: Answer, text: str | None) -> dict[str, Any]:
    status = "in_progress" if text is None else _status(answer)
    content = [] if text is None else [_part(text)]
    item = {"id": f"msg_{answer.id}", "type": "message", "role": "assistant"}
    return {**item, "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


async def _events(answer: Answer) -> AsyncIterator[bytes]:
    numbers = count()

    def event(kind: str, **fields: object) -> bytes:
        return named_event(f"response.{kind}", sequence_number=next(numbers), **fields)

    place = {"item_id": f"msg_{answer.id}", "output_index": 0, "content_index": 0}
    yield event("created", response=_response(answer, None))
    yield event("in_progress", response=_response(answer, None))
    yield event("output_item.added", output_index=0, item=_item(answer, None))
    yield event("content_part.added", **place, part=_part(""))
    text = ""
    try:
        async for piece in answer.generation.tokens():
            text += piece
            yield event("output_text.delta", **place, delta=piece, logprobs=[])
    except EngineFailed as error:
        failed = {"code": "server_error", "message": str(error)}
        yield event(
            "failed", response={**_response(answer, None), "status": "failed", "error": failed}
        )
        return
    yield event("output_text.done", **place, text=text, logprobs=[])
    yield event("content_part.done", **place, part=_part(text))
    yield event("output_item.done", output_index=0, item=_item(answer, text))
    yield event(_status(answer), response=_response(answer, text))


def _usage(answer: Answer) -> dict[str, Any]:
    truth = answer.generation.truth
    return {
        "input_tokens": truth.prompt_tokens,
        "input_tokens_details": {"cached_tokens": truth.cached_tokens},
        "output_tokens": truth.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": truth.prompt_tokens + truth.output_tokens,
    }
