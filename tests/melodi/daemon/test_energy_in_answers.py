"""A running daemon tells its clients what their answers cost, while they are at it."""

import asyncio
import json
import re
from typing import Any

import aiohttp
import ollama
import openai
import pytest
from waiting import PATIENCE_SECONDS

from melodi.daemon.serve import Served

ASK = {"X-Melodi-Energy": "wait"}
QUESTION = {"role": "user", "content": "Count to a hundred."}
TOKENS = 40
PATHS = {"ollama": "/api/chat", "vllm": "/v1/chat/completions"}


@pytest.fixture(autouse=True)
def patient_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine, too, it is told what the books know."""
    monkeypatch.setattr("melodi.daemon.telling.PREVIEW_SECONDS", PATIENCE_SECONDS)


def body(kind: str, *, stream: bool) -> dict[str, Any]:
    limit = {"options": {"num_predict": TOKENS}} if kind == "ollama" else {"max_tokens": TOKENS}
    return {"model": "simulated", "messages": [QUESTION], "stream": stream, **limit}


def told_in(text: str) -> dict[str, Any]:
    """The energy that stands in an answer."""
    if comment := re.search(r"^: energy (.*)$", text, re.MULTILINE):
        return json.loads(comment[1])
    return json.loads(text.splitlines()[-1])["energy"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_tells_what_its_record_says(
    stage: Any, daemon: Served, stream: bool
) -> None:
    """Known, within its bounds, and close to what the record says once it is final."""
    url = daemon.gateway_urls["sim"] + PATHS[stage.kind]
    async with aiohttp.ClientSession() as session:
        asked = body(stage.kind, stream=stream)
        async with session.post(url, json=asked, headers=ASK) as answer:
            told = told_in(await answer.text())
            name = answer.headers["X-Melodi-Request-Id"]
            header = answer.headers.get("X-Energy-Joules")
        async with session.get(f"{daemon.api_url}/v1/requests/{name}?wait=60") as found:
            record = await found.json()
    assert (record["provisional"], record["status"]) == (False, "ok")
    assert 0 < told["low_joules"] <= told["energy_joules"] <= told["high_joules"]
    assert told["energy_joules"] == pytest.approx(record["energy_joules"], rel=0.5)
    assert told["gpu_joules"] == told["energy_joules"]
    assert told["cpu_joules"] is None
    assert told["duration_seconds"] == record["duration_seconds"]
    watts = told["energy_joules"] / told["duration_seconds"]
    assert told["avg_power_watts"] == pytest.approx(watts)
    assert told["energy_kwh"] == pytest.approx(told["energy_joules"] / 3.6e6)
    assert (header is None) == stream
    assert header is None or float(header) == told["energy_joules"]


@pytest.mark.parametrize("stage", ["vllm"], indirect=True)
async def test_many_at_once_all_get_their_answer(stage: Any, daemon: Served) -> None:
    """Under load the figures are provisional, and each is told."""
    url = daemon.gateway_urls["sim"] + PATHS["vllm"]
    async with aiohttp.ClientSession() as session:

        async def one(number: int) -> dict[str, Any]:
            asked = body("vllm", stream=number % 2 == 0)
            async with session.post(url, json=asked, headers=ASK) as answer:
                assert answer.status == 200
                return told_in(await answer.text())

        told = await asyncio.gather(*(one(number) for number in range(40)))
    assert all(one["energy_joules"] > 0 for one in told)


@pytest.mark.parametrize("stage", ["vllm"], indirect=True)
async def test_the_openai_client_reads_answers_with_energy(stage: Any, daemon: Served) -> None:
    """A plain answer has it as a field; a stream reads as it would without."""
    base = f"{daemon.gateway_urls['sim']}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none", default_headers=ASK) as client:
        asked = body("vllm", stream=False)
        answer = await client.chat.completions.create(**asked)
        assert answer.energy["energy_joules"] > 0
        stream = await client.chat.completions.create(**{**asked, "stream": True})
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts) == answer.choices[0].message.content


@pytest.mark.parametrize("stage", ["ollama"], indirect=True)
async def test_the_ollama_client_reads_answers_with_energy(stage: Any, daemon: Served) -> None:
    """Plain and streamed alike; it shows the headers to whoever hooks in."""
    joules: list[float] = []

    async def note(response: Any) -> None:
        joules.append(float(response.headers["X-Energy-Joules"]))

    host = daemon.gateway_urls["sim"]
    asked = body("ollama", stream=False)
    client = ollama.AsyncClient(host=host, headers=ASK, event_hooks={"response": [note]})
    answer = await client.chat(**asked)
    assert joules[0] > 0
    await client.close()
    client = ollama.AsyncClient(host=host, headers=ASK)
    stream = await client.chat(**{**asked, "stream": True})
    parts = [part async for part in stream]
    await client.close()
    assert "".join(part.message.content for part in parts) == answer.message.content
    assert parts[-1].done
