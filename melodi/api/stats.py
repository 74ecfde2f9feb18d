"""`/v1/stats` and `/v1/series`: what requests cost, put together."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool

from melodi.api.answers import json_answer
from melodi.api.apart import Job
from melodi.api.models import StatsAnswer
from melodi.api.questions import SeriesWanted, StatsWanted, stats_answer
from melodi.api.services import Services
from melodi.clock import to_datetime
from melodi.store.stats import rows_to_read

MOST_ROWS_HERE = 2_000
"""Questions that take more rows than that are answered by a process of their own: it takes a second
to start, and each row that is read here asks for the interpreter, which meters need, too."""


def router(services: Services) -> APIRouter:
    """The routes of these resources."""
    routes = APIRouter(prefix="/v1", tags=["stats"])

    @routes.get("/stats", response_model=StatsAnswer)
    async def read_stats(wanted: Annotated[StatsWanted, Query()]) -> Response:
        """Joules per request, per output token and per token, speed, carbon and cost.

        One item for each group, footprint and origin, which are never mixed; each holds what it
        is grouped by. Final records only; those of quality `sub_sensor`, `gap` and `none` are
        left out, and counted in `left_out`, unless `quality` asks for them. Sums and means are
        exact; percentiles are within `percentile_error_ratio`. What is unknown is null.
        """
        return await answered(wanted, to_datetime(services.clock.wall_ns()))

    @routes.get("/series", response_model=StatsAnswer)
    async def read_series(wanted: Annotated[SeriesWanted, Query()]) -> Response:
        """The figures of `/v1/stats` for each bucket of time, by when requests began.

        Buckets in which no request began are left out.
        """
        return await answered(wanted, to_datetime(services.clock.wall_ns()))

    async def answered(wanted: StatsWanted, now: datetime) -> Response:
        query = wanted.to_query(now)
        store, limit = services.store, MOST_ROWS_HERE + 1
        rows = await run_in_threadpool(store.ask, lambda one: rows_to_read(one, query, limit=limit))
        if rows <= MOST_ROWS_HERE:
            answer = await run_in_threadpool(stats_answer, store, query, rates=services.rates)
            return json_answer(answer)
        job = Job(question=wanted, now=now, rates=services.rates)
        parts = [part async for part in services.apart(job)]
        return Response(b"".join(parts), media_type="application/json")

    return routes
