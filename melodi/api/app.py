"""The HTTP API, put together."""

import re
from collections.abc import Iterable

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

import melodi
from melodi.api import (
    backends,
    compare,
    doctor,
    domains,
    exports,
    health,
    inventory,
    ledger,
    power,
    requests,
    stats,
    windows,
)
from melodi.api.answers import PROBLEM_RESPONSES
from melodi.api.errors import handle_errors
from melodi.api.guard import Guard
from melodi.api.services import Services

_RESOURCES = (
    *(requests, stats, compare, ledger, exports, windows, power),
    *(domains, backends, inventory, doctor, health),
)

FIRST_SENTENCE = re.compile(r"\.(?:\s|$)")


def create_api(services: Services, *, names: Iterable[str] = ()) -> FastAPI:
    """The API on top of a running daemon.

    Clients may call it by loopback names and by `names`: the host it listens on, and any other
    name that it has.
    """
    # Hosts without a way to the internet show their documentation too.
    app: FastAPI = FastAPIOffline(
        title="MELODI",
        summary="What each prompt cost in joules",
        version=melodi.__version__,
        redoc_url=None,
        responses=PROBLEM_RESPONSES,
    )
    for resource in _RESOURCES:
        routes = resource.router(services)
        for route in routes.routes:
            if isinstance(route, APIRoute):
                route.summary = FIRST_SENTENCE.split(route.description)[0]
        app.include_router(routes)
    handle_errors(app)
    app.add_middleware(Guard, names=tuple(names))
    return app
