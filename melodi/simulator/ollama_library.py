"""Ollama's models by name: those that are served, and copies that come and go."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from melodi.simulator import ollama_models as models
from melodi.simulator.service import (
    Body,
    Refused,
    Service,
    full_name,
    json_response,
    parse,
    read_json,
)

CREATING = ("using existing layer", "writing manifest", "success")


class NameBody(Body):
    """A request about one model, which older clients call `name`."""

    model: str = ""
    name: str = ""
    stream: bool = True

    @property
    def wanted(self) -> str:
        """The model that is meant; Refused where none is named."""
        if not (self.model or self.name):
            raise Refused(400, "model is required")
        return self.model or self.name


class CreateBody(NameBody):
    """`/api/create`; `from` is the model to begin with."""

    from_: str = ""


class CopyBody(Body):
    """`/api/copy`."""

    source: str
    destination: str


class LibraryApi:
    """The routes that change which models there are."""

    def __init__(self, service: Service):
        self._service = service

    def routes(self) -> list[Route]:
        return [
            Route("/api/pull", self.pull, methods=["POST"]),
            Route("/api/create", self.create, methods=["POST"]),
            Route("/api/copy", self.copy, methods=["POST"]),
            Route("/api/delete", self.delete, methods=["DELETE"]),
        ]

    async def pull(self, request: Request) -> Response:
        body = parse(await read_json(request), NameBody)
        digest = models.digest(body.wanted)
        layer = {"digest": digest, "total": models.SIZE}
        steps: list[dict[str, Any]] = [{"status": "pulling manifest"}]
        if full_name(body.wanted) not in self._service.names:
            # The stream has begun: what is wrong comes as its last line.
            return _progress([*steps, {"error": "pull model manifest: file does not exist"}], body)
        done = {"status": f"pulling {digest[:12]}", **layer, "completed": models.SIZE}
        last = [{"status": "verifying sha256 digest"}, {"status": "success"}]
        return _progress([*steps, {**done, "completed": 0}, done, *last], body)

    async def create(self, request: Request) -> Response:
        content = await read_json(request)
        body = parse({**content, "from_": content.get("from", "")}, CreateBody)
        name = full_name(body.wanted)
        self._service.names[name] = find_model(self._service, body.from_)
        return _progress([{"status": status} for status in CREATING], body)

    async def copy(self, request: Request) -> Response:
        body = parse(await read_json(request), CopyBody)
        served = self._service.names.get(full_name(body.source))
        if served is None:
            raise Refused(404, f'model "{body.source}" not found')
        self._service.names[full_name(body.destination)] = served
        return Response()

    async def delete(self, request: Request) -> Response:
        body = parse(await read_json(request), NameBody)
        find_model(self._service, body.wanted)
        del self._service.names[full_name(body.wanted)]
        return Response()


def find_model(service: Service, name: str) -> str:
    """The served model that `name` means, with or without `:latest`."""
    if not name:
        raise Refused(400, "model is required")
    served = service.names.get(full_name(name))
    if served is None:
        raise Refused(404, f"model '{name}' not found", param="model")
    return served


def _progress(steps: list[dict[str, Any]], body: NameBody) -> Response:
    """What is done, a line a step, or the last of it alone."""
    if not body.stream:
        return json_response(steps[-1], status=500 if "error" in steps[-1] else 200)

    async def lines() -> AsyncIterator[bytes]:
        for step in steps:
            yield orjson.dumps(step) + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")
