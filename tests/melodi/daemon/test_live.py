"""A running daemon tells its power live and around a request, and keeps its windows."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from waiting import PATIENCE_SECONDS, until

from melodi.clock import SystemClock
from melodi.daemon.serve import Served, served
from melodi.inference.request import PromptRequest
from melodi.serving import serving

CLOCK = SystemClock()
DEVICE = "gpu:SIMULATED-0"


# One kind of backend is enough here.
pytestmark = pytest.mark.parametrize("stage", ["vllm"], indirect=True)


@pytest.fixture
async def api(daemon: Served) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(daemon.api_url) as session:
        yield session


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


async def begun(daemon: Served, sheep: int) -> "asyncio.Task[Any]":
    """A request that is under way."""
    asked = PromptRequest(
        backend=daemon.runtime.backend("sim"),
        model="simulated",
        prompt=f"count {sheep} sheep",
        options={"max_tokens": 150},
    )
    task = asyncio.create_task(daemon.runtime.dispatch(asked))
    await until(lambda: daemon.runtime.books.in_flight)
    return task


async def test_power_comes_live_with_joules_that_grow_and_requests_in_flight(
    daemon: Served, api: aiohttp.ClientSession
) -> None:
    """Idle power at first; a request is seen while it runs."""
    async with api.get("/v1/power/live") as answer:
        assert answer.content_type == "text/event-stream"
        stream = events(answer)
        first = await anext(event async for event in stream if event["joules"] is not None)
        task = await begun(daemon, 7)
        busy = await anext(event async for event in stream if event["in_flight"] == 1)
        await task
        last = await anext(event async for event in stream if event["in_flight"] == 0)
    # The second event may come before there is anything newer to tell.
    assert first["joules"] <= busy["joules"] <= last["joules"]
    assert first["joules"] < last["joules"]
    assert last["domains"][DEVICE]["mean_watts"] > 0
    assert last["domains"][DEVICE]["over_seconds"] == 0.2
    assert last["at"].endswith("Z")


async def test_a_client_that_leaves_is_not_written_to_any_more(
    daemon: Served, api: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is reckoned for it, and nothing kept."""
    power, reckoned = daemon.runtime.power, 0
    now = power.now

    def counted() -> Any:
        nonlocal reckoned
        reckoned += 1
        return now()

    monkeypatch.setattr(power, "now", counted)
    async with api.get("/v1/power/live") as answer:
        await anext(events(answer))
        answer.close()
    seen = -1
    async with asyncio.timeout(PATIENCE_SECONDS):
        while seen != reckoned:
            seen = reckoned
            await asyncio.sleep(0.5)
    assert reckoned >= 1


async def test_a_daemon_that_stops_does_not_wait_for_its_live_readers(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream ends properly, and the grace time of streams is not used up."""
    monkeypatch.setitem(serving.__wrapped__.__kwdefaults__, "grace_seconds", 3600)
    async with aiohttp.ClientSession() as session:
        async with served(stage.settings, clock=CLOCK, probes=stage.probes()) as daemon:
            answer = await session.get(f"{daemon.api_url}/v1/power/live")
            await anext(events(answer))
        await answer.read()
        assert answer.content.is_eof()
        assert answer.content.exception() is None


async def test_the_power_around_a_request_is_told_in_steps(
    daemon: Served, api: aiohttp.ClientSession
) -> None:
    """From one step before it to one after it; no finer than a fifth of a second."""
    record = await (await begun(daemon, 40))
    async with api.get(f"/v1/requests/{record.id}/power") as answer:
        assert answer.status == 200
        found = await answer.json()
    assert found["reason"] is None
    series = found["domains"][DEVICE]
    assert series["step_seconds"] == 0.2
    least = record.duration_seconds / 0.2 + 2
    assert least <= len(series["points"]) <= least + 3
    known = [one["mean_watts"] for one in series["points"] if one["mean_watts"] is not None]
    assert max(known) > min(known) > 0
    curve = daemon.runtime.sampler.curves[DEVICE]
    curve._edges = curve.edges.latest(1)
    async with api.get(f"/v1/requests/{record.id}/power") as answer:
        found = await answer.json()
    assert found["domains"] is None
    assert "no longer in memory" in found["reason"]
    async with api.get("/v1/requests/nobody/power") as answer:
        assert answer.status == 404


async def test_a_window_whose_daemon_stopped_is_interrupted_and_an_ended_one_stays(
    stage: Any,
) -> None:
    """The next daemon says so; energy that nobody knows is null."""
    async with (
        aiohttp.ClientSession() as session,
        served(stage.settings, clock=CLOCK, probes=stage.probes()) as daemon,
    ):
        url = f"{daemon.api_url}/v1/windows"
        left, done = [
            (await (await session.post(url, json={"name": name})).json())["id"]
            for name in ("left", "done")
        ]
        await asyncio.sleep(0.3)
        ended = await (await session.post(f"{url}/{done}/end", json={})).json()
        assert ended["joules"] > 0
    async with (
        aiohttp.ClientSession() as session,
        served(stage.settings, clock=CLOCK, probes=stage.probes()) as daemon,
    ):
        url = f"{daemon.api_url}/v1/windows"
        found = await (await session.get(f"{url}/{left}")).json()
        assert (found["status"], found["joules"]) == ("interrupted", None)
        assert await (await session.get(f"{url}/{done}")).json() == ended
        refused = await session.post(f"{url}/{left}/end", json={})
        assert refused.status == 409
