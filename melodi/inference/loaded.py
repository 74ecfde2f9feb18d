"""Asks a backend which models it holds in memory."""

from dataclasses import dataclass

from melodi.inference.backends.base import as_objects, as_text, count
from melodi.inference.backends.ollama import model_name
from melodi.inference.describe import get_object, session_with
from melodi.inference.request import Backend, BackendKind


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to answer."""

    name: str
    vram_bytes: int | None
    """Memory of GPUs that it takes; None: the backend does not tell."""


async def loaded_models(backend: Backend) -> tuple[LoadedModel, ...] | None:
    """The models that a backend holds now; None where that cannot be known.

    Ollama tells (`/api/ps`). Other servers hold what they serve for as long as they run, and
    one that does not run holds nothing.
    """
    import aiohttp

    try:
        async with session_with(backend) as session:
            if backend.kind is BackendKind.OLLAMA:
                found = as_objects(
                    (await get_object(session, f"{backend.url}/api/ps")).get("models")
                )
                return tuple(
                    LoadedModel(name, count(one.get("size_vram")))
                    for one in found
                    if (name := model_name(one.get("name")))
                )
            found = as_objects((await get_object(session, f"{backend.url}/v1/models")).get("data"))
            return tuple(
                LoadedModel(name, None) for one in found if (name := as_text(one.get("id")))
            )
    except aiohttp.ClientConnectorError as failure:
        return () if isinstance(failure.os_error, ConnectionRefusedError) else None
    except Exception:  # noqa: BLE001  whatever it answers, it tells nothing of its models
        return None
