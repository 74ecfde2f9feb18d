"""`/v1/compare`: which of two took fewer joules."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool

from melodi.analysis.compare import rows_to_compare
from melodi.api.answers import json_answer
from melodi.api.apart import Job
from melodi.api.models import CompareAnswer
from melodi.api.questions import CompareWanted, compare_answer
from melodi.api.services import Services
from melodi.api.stats import MOST_ROWS_HERE
from melodi.clock import to_datetime


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(prefix="/v1/compare", tags=["stats"])

    @routes.get("", response_model=CompareAnswer)
    async def compare(wanted: Annotated[CompareWanted, Query()]) -> Response:
        """The ratio of a's joules to b's: per output token, per request and per token.

        Each with a 95 % confidence interval; `lower` names the side that has less, and is null
        where the interval holds 1. Final records only; those of quality `sub_sensor`, `gap` and
        `none` are left out and counted, unless `quality` asks for them. Records of different
        footprint or origin are not compared: 422, with the filters that help.
        """
        now = to_datetime(services.clock.wall_ns())
        query = wanted.to_query(now)
        store, limit = services.store, MOST_ROWS_HERE + 1
        rows = await run_in_threadpool(
            store.ask, lambda one: rows_to_compare(one, query, limit=limit)
        )
        if rows <= MOST_ROWS_HERE:
            return json_answer(await run_in_threadpool(compare_answer, store, query))
        parts = [part async for part in services.apart(Job(question=wanted, now=now))]
        return Response(b"".join(parts), media_type="application/json")

    return routes
