"""The HTTP API, put together."""

from collections.abc import Iterable

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

import melodi
from melodi.api import (
    backends,
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
    *(requests, stats, ledger, exports, windows, power),
    *(domains, backends, inventory, doctor, health),
)


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
        app.include_router(resource.router(services))
    handle_errors(app)
    app.add_middleware(Guard, names=tuple(names))
    return app
