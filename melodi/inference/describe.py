"""Asks a backend who it is: whether it answers, its version and its models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from melodi.clock import SystemClock
from melodi.errors import ConfigError
from melodi.inference.backends.base import as_object, as_objects, as_text
from melodi.inference.backends.ollama import model_name
from melodi.inference.engine_counters import NoCounters, read_counters
from melodi.inference.ndjson import read_object
from melodi.inference.recording import unreachable
from melodi.inference.request import Backend, BackendKind
from melodi.inference.tls import trust

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_SECONDS = 5
VERSION_PATHS = {BackendKind.OLLAMA: "/api/version", BackendKind.VLLM: "/version"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A model that a backend offers."""

    name: str
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendView:
    """What a backend says of itself; `error` says what to do where it says nothing."""

    name: str
    kind: BackendKind
    url: str
    reachable: bool
    version: str | None = None
    models: tuple[ModelView, ...] = ()
    metrics: bool | None = None
    """Whether it tells its steps at /metrics; None: its kind has none."""
    metrics_reason: str | None = None
    """Why it does not."""
    error: str | None = None


async def describe(backend: Backend) -> BackendView:
    """Ask a backend for its version and models; a failure is in the view, not raised."""
    import aiohttp

    version: str | None = None
    models: tuple[ModelView, ...] = ()
    error: str | None = None
    metrics: bool | None = None
    metrics_reason: str | None = None
    try:
        async with session_with(backend) as session:
            version = await _version(session, backend)
            models = await _models(session, backend)
            if backend.kind is BackendKind.VLLM:
                metrics_reason = await _no_metrics(session, backend)
                metrics = metrics_reason is None
    except (aiohttp.ClientConnectionError, TimeoutError) as failure:
        return _view(backend, reachable=False, error=unreachable(backend, failure))
    except ConfigError as failure:
        return _view(backend, reachable=False, error=str(failure))
    except aiohttp.ClientResponseError as failure:
        error = f"backend {backend.name} answers {failure.request_info.url.path} with HTTP status "
        error += f"{failure.status}: check its kind and api_key"
    except Exception as failure:  # noqa: BLE001  whatever it answers, the others are asked too
        error = f"backend {backend.name} gives no readable answer ({type(failure).__name__}): "
        error += "check its url and kind"
    view = _view(backend, reachable=True, version=version, models=models, error=error)
    return replace(view, metrics=metrics, metrics_reason=metrics_reason)


def session_with(backend: Backend) -> "aiohttp.ClientSession":
    """A session to ask a backend something short; ConfigError where it cannot be trusted."""
    import aiohttp

    key = backend.api_key
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust(backend)),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
    )


async def get_object(session: "aiohttp.ClientSession", url: str) -> Mapping[str, object]:
    """The JSON object that answers a GET; aiohttp's errors, or ValueError, where there is none."""
    async with session.get(url, allow_redirects=False) as answer:
        answer.raise_for_status()
        return as_object(read_object(await answer.read()))


def _view(
    backend: Backend,
    *,
    reachable: bool,
    version: str | None = None,
    models: tuple[ModelView, ...] = (),
    error: str | None = None,
) -> BackendView:
    return BackendView(
        name=backend.name,
        kind=backend.kind,
        url=backend.url,
        reachable=reachable,
        version=version,
        models=models,
        error=error,
    )


async def _version(session: "aiohttp.ClientSession", backend: Backend) -> str | None:
    path = VERSION_PATHS.get(backend.kind)
    if path is None:
        return None
    answer = await get_object(session, backend.url + path)
    return as_text(answer.get("version")) or None


async def _models(session: "aiohttp.ClientSession", backend: Backend) -> tuple[ModelView, ...]:
    if backend.kind is BackendKind.OLLAMA:
        found = as_objects((await get_object(session, f"{backend.url}/api/tags")).get("models"))
        return tuple(
            ModelView(name=name, digest=as_text(model.get("digest")) or None)
            for model in found
            if (name := model_name(model.get("name")))
        )
    found = as_objects((await get_object(session, f"{backend.url}/v1/models")).get("data"))
    return tuple(ModelView(name=name) for model in found if (name := as_text(model.get("id"))))


async def _no_metrics(session: "aiohttp.ClientSession", backend: Backend) -> str | None:
    """Why it does not tell its steps; None where it does."""
    try:
        await read_counters(session, backend, SystemClock())
    except NoCounters as reason:
        return str(reason)
    return None
