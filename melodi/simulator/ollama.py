"""Ollama's own API: newline-delimited JSON, durations in nanoseconds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from melodi.simulator import ollama_models as models
from melodi.simulator.jobs import Submission
from melodi.simulator.ollama_call import Call
from melodi.simulator.ollama_library import LibraryApi, find_model
from melodi.simulator.openai_bodies import Tool
from melodi.simulator.replies import StreamReply, WholeReply
from melodi.simulator.service import (
    Body,
    Refused,
    Service,
    embed,
    finish_or_refuse,
    json_response,
    parse,
    read_json,
)
from melodi.simulator.text import tokenize

MAX_QUEUE = 512

Reply = Response | StreamReply | WholeReply


class ModelBody(Body):
    """A request about one model."""

    model: str = ""


class RunBody(ModelBody):
    """What every request that runs a model may say."""

    keep_alive: float | str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    format: str | dict[str, Any] = ""
    stream: bool = True


class GenerateBody(RunBody):
    """`/api/generate`."""

    prompt: str = ""
    system: str = ""
    context: list[int] = Field(default_factory=list)
    raw: bool = False


class ChatMessage(Body):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""


class ChatBody(RunBody):
    """`/api/chat`."""

    messages: list[ChatMessage] = Field(default_factory=list)
    tools: list[Tool] = Field(default_factory=list)


class EmbedBody(RunBody):
    """`/api/embed`."""

    input: str | list[str] = ""


class EmbedOneBody(RunBody):
    """`/api/embeddings`."""

    prompt: str = ""


class OllamaApi:
    """The routes under `/api`, and the greeting."""

    def __init__(self, service: Service):
        self._service = service

    def routes(self) -> list[Route]:
        return [
            Route("/", self.greet),
            Route("/api/version", self.version),
            Route("/api/tags", self.tags),
            Route("/api/ps", self.ps),
            Route("/api/show", self.show, methods=["POST"]),
            Route("/api/generate", self.generate, methods=["POST"]),
            Route("/api/chat", self.chat, methods=["POST"]),
            Route("/api/embed", self.embed, methods=["POST"]),
            Route("/api/embeddings", self.embed_one, methods=["POST"]),
            *LibraryApi(self._service).routes(),
        ]

    async def greet(self, request: Request) -> Response:  # noqa: ARG002 - a route
        return PlainTextResponse("Ollama is running")

    async def version(self, request: Request) -> Response:  # noqa: ARG002 - a route
        return json_response({"version": models.VERSION})

    async def tags(self, request: Request) -> Response:  # noqa: ARG002 - a route
        listed = [models.listed(model) for model in self._service.names]
        return json_response({"models": listed})

    async def ps(self, request: Request) -> Response:  # noqa: ARG002 - a route
        clock = self._service.clock
        now_ns = clock.monotonic_ns()
        loaded = self._service.core.loaded(now_ns)
        if loaded is None:
            return json_response({"models": []})
        stays_ns = models.FOREVER_NS if loaded.expires_ns is None else loaded.expires_ns - now_ns
        expires_at = models.timestamp(clock.wall_ns() + stays_ns)
        entry = models.running(
            loaded.model, context_tokens=loaded.context_tokens, expires_at=expires_at
        )
        return json_response({"models": [entry]})

    async def show(self, request: Request) -> Response:
        body = parse(await read_json(request), ModelBody)
        find_model(self._service, body.model)
        return json_response(models.shown(self._service.settings.context_tokens))

    async def generate(self, request: Request) -> Reply:
        began_ns = self._service.clock.monotonic_ns()
        body = parse(await read_json(request), GenerateBody)
        call = Call(service=self._service, model=body.model, chat=False, began_ns=began_ns)
        if not body.prompt:
            return self._load(body, call)
        system = f"{body.system}\n" if body.system else ""
        prompt = (*(token & 0xFFFF_FFFF for token in body.context), *tokenize(system + body.prompt))
        return self._run(body, call, prompt, hand_back=not body.raw)

    async def chat(self, request: Request) -> Reply:
        began_ns = self._service.clock.monotonic_ns()
        body = parse(await read_json(request), ChatBody)
        tool = body.tools[0].function.name if body.tools else None
        call = Call(
            service=self._service, model=body.model, chat=True, began_ns=began_ns, tool=tool
        )
        if not body.messages:
            return self._load(body, call)
        turns = "".join(f"{turn.role}: {turn.content}\n" for turn in body.messages)
        return self._run(body, call, tokenize(turns + "assistant:"), hand_back=False)

    async def embed(self, request: Request) -> Reply:
        began_ns = self._service.clock.monotonic_ns()
        body = parse(await read_json(request), EmbedBody)
        inputs = [body.input] if isinstance(body.input, str) else body.input
        prompt = tuple(token for text in inputs for token in tokenize(text))
        call = Call(service=self._service, model=body.model, chat=False, began_ns=began_ns)
        generation = self._service.generate(self._submission(body, prompt))

        async def finish() -> Response:
            await finish_or_refuse(generation)
            vectors = [embed(text) for text in inputs if text]
            metrics = call.metrics(generation)
            metrics.pop("prompt_eval_duration", None)
            return json_response({"model": body.model, "embeddings": vectors, **metrics})

        return WholeReply(generation, finish())

    async def embed_one(self, request: Request) -> Reply:
        body = parse(await read_json(request), EmbedOneBody)
        submission = self._submission(body, tokenize(body.prompt))
        generation = self._service.generate(submission)

        async def finish() -> Response:
            await finish_or_refuse(generation)
            return json_response({"embedding": embed(body.prompt)})

        return WholeReply(generation, finish())

    def _load(self, body: RunBody, call: Call) -> Reply:
        submission = self._submission(body, ())
        if submission.keep_alive_ns == 0:
            now_ns = self._service.clock.monotonic_ns()
            self._service.core.unload(submission.model, now_ns)
            return json_response(call.line("", done=True, done_reason="unload"))
        generation = self._service.engine.submit(submission)

        async def finish() -> Response:
            await generation.finish()
            return json_response(call.line("", done=True, done_reason="load"))

        return WholeReply(generation, finish())

    def _run(self, body: RunBody, call: Call, prompt: Sequence[int], *, hand_back: bool) -> Reply:
        if hand_back:
            call = replace(call, context=tuple(prompt))
        submission = self._submission(body, prompt)
        wanted = int(models.known_options(body.options).get("num_predict", -1))
        limit = wanted if wanted > 0 else None
        submission = self._service.with_answer(submission, limit=limit)
        as_json = bool(body.format) or call.tool is not None
        generation = self._service.generate(submission, json=as_json)
        if body.stream:
            headers = {"content-type": "application/x-ndjson"}
            return StreamReply(generation, call.stream(generation), headers=headers)

        async def finish() -> Response:
            text = await finish_or_refuse(generation)
            return _whole(call.whole(text, generation))

        return WholeReply(generation, finish())

    def _submission(self, body: RunBody, prompt: Sequence[int]) -> Submission:
        """What the engine is asked for, before the answer; refuses what Ollama refuses."""
        model = find_model(self._service, body.model)
        longest = self._service.settings.context_tokens
        wanted = int(models.known_options(body.options).get("num_ctx", longest))
        context_tokens = max(models.LEAST_CONTEXT_TOKENS, min(longest, wanted))
        if len(prompt) > context_tokens:
            prompt = prompt[-(context_tokens // 2 + 2) :]
        if self._service.core.totals().waiting >= MAX_QUEUE:
            raise Refused(503, "server busy, please try again.  maximum pending requests exceeded")
        return Submission(
            model=model,
            context_tokens=context_tokens,
            prompt=prompt,
            keep_alive_ns=models.keep_alive_ns(body.keep_alive),
        )


def _whole(content: object) -> Response:
    response = json_response(content)
    response.headers["content-type"] = "application/json; charset=utf-8"
    return response
