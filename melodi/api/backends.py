"""`/v1/backends`: the inference servers that are configured."""

from fastapi import APIRouter, Response

from melodi.api.answers import list_answer
from melodi.api.models import ObjectList
from melodi.api.services import Services


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(prefix="/v1/backends", tags=["host"])

    @routes.get("", response_model=ObjectList)
    async def list_backends() -> Response:
        """Each backend, and whether it answers."""
        return list_answer(await services.backends())

    return routes
