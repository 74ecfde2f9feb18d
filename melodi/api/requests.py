"""`/v1/requests`: records, one record, and prompts to be sent."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from melodi.api.answers import NDJSON, json_answer, list_answer, ndjson_answer, problem
from melodi.api.filters import Filters
from melodi.api.models import Prompt, Record, RecordList
from melodi.api.services import Services
from melodi.clock import to_datetime
from melodi.energy.record import EnergyRecord
from melodi.errors import BackendError

LONGEST_WAIT_SECONDS = 60.0


class Wanted(Filters):
    """Which records, and how many."""

    limit: Annotated[int, Query(ge=1, le=1000)] = 100
    """How many, at most 1000."""
    cursor: str | None = None
    """`next_cursor` of the page before."""


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(prefix="/v1/requests", tags=["requests"])

    def newest(request_id: str) -> EnergyRecord | None:
        stored = services.store.get(request_id)
        if stored is not None and not stored.provisional:
            return stored
        return services.preview(request_id) or stored

    @routes.get("", response_model=RecordList, responses={200: {"content": {NDJSON: {}}}})
    async def list_requests(request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
        """Stored records, newest first; lines of JSON if `Accept` asks for `application/x-ndjson`.

        Of a request that is not final yet, `/v1/requests/{id}` may know more.
        """
        now = to_datetime(services.clock.wall_ns())
        page = await run_in_threadpool(
            services.store.page, wanted.to_filter(now), cursor=wanted.cursor, limit=wanted.limit
        )
        if NDJSON not in request.headers.get("accept", ""):
            return list_answer(page.items, next_cursor=page.next_cursor)
        return ndjson_answer(page.items, headers=_next_link(request, page.next_cursor))

    @routes.get("/{request_id}", response_model=Record)
    async def get_request(
        request_id: Annotated[str, Path(description="The record's `id`.")],
        wait: Annotated[float, Query(ge=0, description="Seconds to wait at most.")] = 0,
    ) -> Response:
        """One record; with `wait`, as soon as it is final, at the latest after 60 seconds."""
        record = await run_in_threadpool(newest, request_id)
        if wait and record is not None and record.provisional:
            seconds = min(wait, LONGEST_WAIT_SECONDS)
            final = await services.wait_final(request_id, seconds)
            record = final or await run_in_threadpool(newest, request_id)
        if record is None:
            raise HTTPException(404, f"there is no request {request_id!r}")
        return json_answer(record)

    @routes.post("", response_model=Record)
    async def send_prompt(prompt: Prompt) -> Response:
        """Send a prompt; the answer holds its `response` and its energy."""
        try:
            request = prompt.to_request(services.backend(prompt.backend))
        except BackendError as error:
            return problem(422, str(error))
        return json_answer(await services.dispatch(request))

    return routes


def _next_link(request: Request, cursor: str | None) -> dict[str, str]:
    """Where lines of JSON go on: they have no room for a cursor (RFC 8288)."""
    if cursor is None:
        return {}
    return {"Link": f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'}
