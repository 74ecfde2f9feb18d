"""`/v1/hosts` and `/v1/models`: who writes to this database, and what was served."""

from fastapi import APIRouter, Response

from melodi.api.answers import list_answer
from melodi.api.models import HostList, ModelList
from melodi.api.services import Services
from melodi.store.inventory import read_hosts, read_models


def router(services: Services) -> APIRouter:
    """The routes of these resources."""
    routes = APIRouter(prefix="/v1", tags=["host"])

    @routes.get("/hosts", response_model=HostList)
    def list_hosts() -> Response:
        """Each machine that wrote to this database, and what is known of it."""
        return list_answer(services.store.ask(read_hosts))

    @routes.get("/models", response_model=ModelList)
    def list_models() -> Response:
        """Each model that was served, by host and backend; what a backend offers is there."""
        return list_answer(services.store.ask(read_models))

    return routes
