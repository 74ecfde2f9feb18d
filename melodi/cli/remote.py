"""Sends prompts through a daemon that already keeps the books of this host."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from melodi.energy.record import EnergyRecord
from melodi.errors import BackendError

if TYPE_CHECKING:
    import aiohttp

FINAL_SECONDS = 60


async def ask_first(api_url: str, *, backend: str, model: str) -> None:
    """Raise BackendError where the daemon's backend cannot serve the model."""
    import aiohttp

    from melodi.inference.readiness import check_servable
    from melodi.inference.request import BackendKind

    try:
        async with aiohttp.ClientSession(api_url) as session, session.get("/v1/backends") as answer:
            listed = (await answer.json())["items"]
    except aiohttp.ClientError:
        raise BackendError(f"the daemon at {api_url} does not answer; see its log") from None
    for one in listed:
        if one["name"] == backend:
            check_servable(
                model,
                backend=backend,
                kind=BackendKind(one["kind"]),
                error=one["error"],
                models=[known["name"] for known in one["models"]],
            )


async def send_through(
    api_url: str,
    prompts: Iterable[dict[str, Any]],
    *,
    concurrency: int,
    on_done: Callable[[], None],
) -> list[EnergyRecord]:
    """POST each of `prompts` to the daemon's API, so many at a time; their final records.

    Raises BackendError with the daemon's own words where it refuses one.
    """
    import aiohttp

    slots = asyncio.Semaphore(concurrency)
    unlimited = aiohttp.ClientTimeout(total=None)

    async def one(session: aiohttp.ClientSession, prompt: dict[str, Any]) -> EnergyRecord:
        async with slots:
            record = await _send(session, prompt)
        on_done()
        return record

    async with aiohttp.ClientSession(api_url, timeout=unlimited) as session:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(session, prompt)) for prompt in prompts]
        except* BackendError as errors:
            raise errors.exceptions[0] from None
        except* aiohttp.ClientError:
            raise BackendError(f"the daemon at {api_url} broke off; see its log") from None
    return [task.result() for task in tasks]


async def _send(session: "aiohttp.ClientSession", prompt: dict[str, Any]) -> EnergyRecord:
    from pydantic import TypeAdapter

    async with session.post("/v1/requests", json=prompt) as answer:
        record = await answer.json(content_type=None)
        if answer.status != 200:
            raise BackendError(str(record.get("detail", record)))
    if record["provisional"]:
        path = f"/v1/requests/{record['id']}"
        async with session.get(path, params={"wait": FINAL_SECONDS}) as answer:
            record = await answer.json()
    return TypeAdapter(EnergyRecord).validate_python(record)
