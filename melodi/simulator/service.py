"""What both dialects share: reading a request, planning its answer, running it."""

from dataclasses import replace
from random import Random
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from melodi.clock import Clock
from melodi.simulator.core import TRUTHS_KEPT, Core
from melodi.simulator.engine import Engine, Generation
from melodi.simulator.faults import EngineFailed, FaultKind, Faults
from melodi.simulator.jobs import Submission
from melodi.simulator.text import as_json, compose, natural_length, tokenize

EMBEDDING_SIZE = 64

_Body = TypeVar("_Body", bound="Body")


class Refused(Exception):
    """A request is answered with an error status; each dialect words it its own way."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, error_type: str | None = None
    ):
        super().__init__(message)
        self.status = status
        self.param = param
        self.error_type = error_type


class Body(BaseModel):
    """A request body: JSON types are not bent, fields not named are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Service:
    """The engine with its faults and the names its answers go by."""

    def __init__(self, core: Core, clock: Clock):
        self.core = core
        self.clock = clock
        self.settings = core.settings
        self.engine = Engine(core, clock)
        self.faults = Faults()
        self.names = {full_name(model): model for model in core.settings.models}
        """The served model behind each name that Ollama lists."""
        self._named: dict[str, int] = {}
        self._random = Random(core.settings.seed)  # noqa: S311 - ids, not secrets

    def generate(self, submission: Submission, *, json: bool = False) -> Generation:
        """Start a request that the next fault may strike; `json`: its text is an object."""
        fault = self.faults.take()
        if fault is not None and fault.kind is FaultKind.HTTP_500:
            raise Refused(500, str(EngineFailed()))
        seed = self.settings.seed
        pieces = compose(submission.prompt, submission.output_tokens, seed=seed)
        pieces = as_json(pieces) if json else pieces
        return self.engine.submit(submission, pieces=pieces, fault=fault)

    def with_answer(
        self,
        submission: Submission,
        *,
        limit: int | None,
        at_least: int = 0,
        ignore_end: bool = False,
    ) -> Submission:
        """`submission` with the length of its answer: the model's own, or `limit` if that is less.

        `ignore_end`: the model goes on to the limit.
        """
        own = natural_length(submission.prompt, seed=self.settings.seed)
        own = max(own, at_least)
        cut = limit is not None and (ignore_end or limit <= own)
        tokens, reason = (limit or own, "length") if cut else (own, "stop")
        return replace(submission, output_tokens=tokens, finish_reason=reason)

    def random_hex(self) -> str:
        """32 hex digits, for the id of an answer."""
        return f"{self._random.getrandbits(128):032x}"

    def name(self, answer_id: str, request: int) -> None:
        """From now on `answer_id` names `request`, whatever it named before."""
        self._named.pop(answer_id, None)
        self._named[answer_id] = request
        if len(self._named) > TRUTHS_KEPT:
            del self._named[next(iter(self._named))]

    def find(self, name: str) -> int | None:
        """The request that an answer's id, or an X-Simulator-Id, stands for."""
        return int(name) if name.isdecimal() else self._named.get(name)


def full_name(name: str) -> str:
    """The name with its tag, as listings show it."""
    return name if ":" in name else f"{name}:latest"


async def finish_or_refuse(generation: Generation) -> str:
    """The whole text of an answer; Refused with 500 where the engine fails."""
    try:
        return await generation.finish()
    except EngineFailed as error:
        raise Refused(500, str(error)) from None


async def read_json(request: Request) -> dict[str, Any]:
    """The body as an object, nulls left out; Refused with 400 where it is none."""
    try:
        content = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}", error_type="Bad Request") from None
    if not isinstance(content, dict):
        raise Refused(400, "the body must be a JSON object", error_type="Bad Request")
    return {key: value for key, value in content.items() if value is not None}


def parse(content: dict[str, Any], body: type[_Body]) -> _Body:
    """`content` as a `body`; Refused with 400 where it does not fit."""
    try:
        return body.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        message = f"{place}: {first['msg']}"
        raise Refused(400, message, param=str(first["loc"][0]), error_type="Bad Request") from None


def json_response(content: object, *, status: int = 200) -> Response:
    """A JSON response as Go and Python servers write it, without spaces."""
    media_type = "application/json"
    return Response(orjson.dumps(content), status_code=status, media_type=media_type)


def named_event(kind: str, **fields: object) -> bytes:
    """A server-sent event of a type, which its data repeats."""
    data = orjson.dumps({"type": kind, **fields})
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


def embed(text: str) -> list[float]:
    """A unit vector of EMBEDDING_SIZE numbers that depends on the tokens of `text` alone."""
    vector = [0.0] * EMBEDDING_SIZE
    for token in tokenize(text):
        vector[token % EMBEDDING_SIZE] += 1.0
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector] if length else vector
