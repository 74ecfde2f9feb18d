"""The simulated server as an ASGI app: one dialect, and what only a simulator can tell."""

from dataclasses import asdict
from typing import Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from melodi.clock import Clock
from melodi.simulator.core import Core
from melodi.simulator.flavour_ollama import OllamaFlavour
from melodi.simulator.flavour_vllm import VERSION, VllmFlavour
from melodi.simulator.messages import MessagesApi
from melodi.simulator.metrics import exposition
from melodi.simulator.ollama import OllamaApi
from melodi.simulator.openai import Flavour, OpenAIApi
from melodi.simulator.responses import ResponsesApi
from melodi.simulator.sensor import PowerSensor
from melodi.simulator.service import Refused, Service, json_response, read_json

ServerKind = Literal["ollama", "vllm"]


def create_simulator(
    kind: ServerKind, *, core: Core, sensor: PowerSensor, clock: Clock
) -> Starlette:
    """The app that serves `core` in the time of `clock`, which must be the real one."""
    service = Service(core, clock)
    flavour: Flavour = OllamaFlavour(service) if kind == "ollama" else VllmFlavour(service)
    own = OllamaApi(service).routes() if kind == "ollama" else _vllm_routes(service)
    openai = OpenAIApi(service, flavour)
    shared = (openai, MessagesApi(openai), ResponsesApi(openai), _Truths(service, sensor))
    routes = [*own, *(route for api in shared for route in api.routes())]

    async def refuse(request: Request, error: Exception) -> Response:
        refused = error if isinstance(error, Refused) else Refused(500, str(error))
        if kind == "ollama" and request.url.path.startswith("/api/"):
            return json_response({"error": str(refused)}, status=refused.status)
        return json_response(flavour.error(refused), status=refused.status)

    async def no_route(request: Request, error: Exception) -> Response:  # noqa: ARG001
        known = error if isinstance(error, HTTPException) else HTTPException(500)
        if kind == "vllm":
            return json_response({"detail": known.detail}, status=known.status_code)
        wording = {404: "404 page not found", 405: "405 method not allowed"}
        text = wording.get(known.status_code, known.detail)
        return PlainTextResponse(text, known.status_code)

    return Starlette(routes=routes, exception_handlers={Refused: refuse, HTTPException: no_route})


def _vllm_routes(service: Service) -> list[Route]:
    async def health(request: Request) -> Response:  # noqa: ARG001 - a route
        return Response()

    async def version(request: Request) -> Response:  # noqa: ARG001 - a route
        return json_response({"version": VERSION})

    async def metrics(request: Request) -> Response:
        service.core.advance(service.clock.monotonic_ns())
        media_type = "text/plain; version=0.0.4; charset=utf-8"
        # As vLLM does: only with the slash at its end can one ask for a part.
        names = request.query_params.getlist("name[]") if request.url.path[-1] == "/" else ()
        return Response(exposition(service.core, names=names), media_type=media_type)

    paths = {"/health": health, "/version": version, "/metrics": metrics, "/metrics/": metrics}
    return [Route(path, endpoint) for path, endpoint in paths.items()]


class _Truths:
    """The routes under `/simulator`: true energy, the power sensor, faults to order."""

    def __init__(self, service: Service, sensor: PowerSensor):
        self._service = service
        self._sensor = sensor

    def routes(self) -> list[Route]:
        return [
            Route("/simulator/requests/{name}", self.truth),
            Route("/simulator/power", self.power),
            Route("/simulator/faults", self.faults, methods=["POST"]),
        ]

    async def truth(self, request: Request) -> Response:
        name = request.path_params["name"]
        number = self._service.find(name)
        try:
            truth = None if number is None else self._service.core.truth(number)
        except KeyError:
            truth = None
        if truth is None:
            hint = "use the id of a response, or its X-Simulator-Id"
            return json_response({"error": f"no request is known as {name}; {hint}"}, status=404)
        return json_response({"id": name, **asdict(truth)})

    async def power(self, request: Request) -> Response:  # noqa: ARG002 - a route
        at_ns = self._service.clock.monotonic_ns()
        energy_uj, power_uw = self._sensor.read(at_ns)
        domain = self._sensor.domain
        described = {
            "name": domain.name,
            "kind": domain.kind,
            "scope": domain.scope,
            "source": domain.source,
            "refresh_ns": domain.refresh_ns,
            "max_power_watts": domain.max_power_watts,
        }
        reading = {**described, "energy_uj": energy_uj, "power_uw": power_uw}
        return json_response({"at_ns": at_ns, "domains": [reading]})

    async def faults(self, request: Request) -> Response:
        try:
            coming = self._service.faults.order(await read_json(request))
        except ValueError as error:
            return json_response({"error": str(error)}, status=400)
        return json_response({"coming": coming})
