"""`/v1/doctor`: which meters and backends can be read, and how to mend what cannot."""

from fastapi import APIRouter, Response

from melodi.api.answers import json_answer
from melodi.api.models import Diagnosis
from melodi.api.services import Services


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(prefix="/v1/doctor", tags=["host"])

    @routes.get("", response_model=Diagnosis)
    async def examine() -> Response:
        """As `melodi doctor`, of the meters that the daemon has open."""
        return json_answer(await services.doctor())

    return routes
