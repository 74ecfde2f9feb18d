"""`/v1/power/live` and `/v1/requests/{id}/power`: what the host draws and drew."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict
from starlette.responses import StreamingResponse

from melodi.api.answers import json_answer, to_json
from melodi.api.services import Services
from melodi.clock import to_datetime
from melodi.sampling.power import PowerSeries

EVENT_STREAM = "text/event-stream"


class RequestPower(BaseModel):
    """The power of each domain around one request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    domains: dict[str, PowerSeries] | None
    """From one step before to one after it; null where nothing is known any more."""
    reason: str | None
    """Why there is none."""


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(prefix="/v1", tags=["power"])

    @routes.get(
        "/power/live",
        response_class=StreamingResponse,
        responses={200: {"content": {EVENT_STREAM: {}}}},
    )
    async def live_power() -> Response:
        """Server-sent events: the latest power of every domain, five times a second.

        The data of each is `{at, domains: {name: {mean_watts, over_seconds, joules}}, joules,
        in_flight}`; joules are those since the start. GPUs are renewed with each event, all
        others once a second. A client that reads slowly gets fewer events.
        """
        return StreamingResponse(
            _events(services), media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"}
        )

    @routes.get("/requests/{request_id}/power", response_model=RequestPower)
    async def request_power(
        request_id: Annotated[str, Path(description="The record's `id`.")],
    ) -> Response:
        """Power around a request, in steps of 0.2 s for GPUs and of 1 s for all others.

        It is kept in memory only, for about a quarter of an hour.
        """
        record = await run_in_threadpool(
            lambda: services.preview(request_id) or services.store.get(request_id)
        )
        if record is None:
            raise HTTPException(404, f"there is no request {request_id!r}")
        seconds = record.duration_seconds
        if seconds is None:
            now = to_datetime(services.clock.wall_ns())
            seconds = max(0.0, (now - record.started_at).total_seconds())
        if record.host != services.power.host:
            return _none(request_id, f"it ran on {record.host}; ask there")
        domains = services.power.around(record.started_at, seconds)
        if not domains:
            return _none(request_id, "its power was not measured, or is no longer in memory")
        return json_answer({"id": request_id, "domains": domains, "reason": None})

    return routes


async def _events(services: Services) -> AsyncIterator[bytes]:
    async for now in services.power.live():
        yield b"data: " + to_json(now) + b"\n\n"


def _none(request_id: str, reason: str) -> Response:
    body: dict[str, Any] = {"id": request_id, "domains": None, "reason": reason}
    return json_answer(body)
