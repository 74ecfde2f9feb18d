"""A running daemon answers for its meters, its figures and its files."""

import json
from typing import Any

import aiohttp
import pytest
from waiting import PATIENCE_SECONDS

from melodi.clock import SystemClock
from melodi.config import Carbon
from melodi.daemon.serve import served
from melodi.inference.request import PromptRequest


@pytest.mark.parametrize("stage", ["vllm"], indirect=True)
async def test_the_daemon_tells_its_meters_its_figures_and_its_records(
    stage: Any,
) -> None:
    """Doctor without opening a meter twice, statistics with the settings' rates, an export."""
    settings = stage.settings.model_copy(update={"carbon": Carbon(grams_per_kwh=400.0)})
    async with (
        served(settings, clock=SystemClock(), probes=stage.probes()) as daemon,
        aiohttp.ClientSession(daemon.api_url) as session,
    ):
        runtime = daemon.runtime
        prompt = PromptRequest(
            backend=runtime.backend("sim"),
            model="simulated",
            prompt="How much?",
            options={"max_tokens": 60},
        )
        sent = await runtime.dispatch(prompt)
        record = await runtime.final(sent.id, PATIENCE_SECONDS)
        assert not record.provisional
        found = await (await session.get("/v1/doctor")).json()
        (meter,) = found["collectors"]
        assert (meter["name"], meter["state"]) == ("simulated", "ok")
        assert meter["domains"][0]["moving"] is True
        assert meter["refresh_seconds"] == pytest.approx(0.1, rel=0.5)
        assert {one["name"]: one["reachable"] for one in found["backends"]} == {
            "sim": True,
            "down": False,
        }
        assert found["measurable"] is True
        quality = {"quality": record.quality.value}
        (group,) = (await (await session.get("/v1/stats", params=quality)).json())["items"]
        assert group["joules_per_request"]["sum"] == record.energy_joules
        assert group["grams_co2e"] == pytest.approx(record.energy_joules / 3.6e6 * 400)
        answer = await session.get("/v1/exports", params={"format": "jsonl"})
        (line,) = (await answer.text()).splitlines()
        assert json.loads(line)["id"] == record.id
