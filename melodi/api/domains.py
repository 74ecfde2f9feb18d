"""`/v1/domains`: the power domains of this host."""

from fastapi import APIRouter, Response

from melodi.api.answers import list_answer
from melodi.api.models import ObjectList
from melodi.api.services import Services


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(prefix="/v1/domains", tags=["host"])

    @routes.get("", response_model=ObjectList)
    async def list_domains() -> Response:
        """What is measured here, by which sensor, and what it draws when idle."""
        return list_answer(services.domains())

    return routes
