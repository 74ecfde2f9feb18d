"""`/`, `/metrics`, `/healthz` and `/readyz`: for a browser, and for what watches the daemon."""

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from melodi.api.answers import json_answer, problem
from melodi.api.services import Services


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(tags=["health"])

    @routes.get("/", include_in_schema=False)
    def start() -> RedirectResponse:
        """Whoever opens the address in a browser finds what can be asked."""
        return RedirectResponse("/docs")

    @routes.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Counters and gauges for Prometheus."""
        return Response(generate_latest(services.registry), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/healthz")
    async def healthz() -> dict[str, bool]:
        """The process answers."""
        return {"healthy": True}

    @routes.get("/readyz", response_model=dict[str, bool])
    async def readyz() -> Response:
        """The daemon measures and stores; 503 with the faults where it does not."""
        faults = list(services.faults())
        if faults:
            return problem(503, "; ".join(faults), faults=faults)
        return json_answer({"ready": True})

    return routes
