"""A real server answers through the gateway as it answers directly."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from real_engine import Engine
from scripted_server import MemoryRecorder, served

from melodi.clock import SystemClock
from melodi.energy.record import Status
from melodi.gateway.app import create_gateway
from melodi.inference.request import Backend, BackendKind

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

PROMPTS = ["Count to ten.", "Name a colour.", "Why is the sky blue?"]
OF_THE_MOMENT = frozenset({"id", "created", "created_at", "completed_at", "item_id"})


@pytest.fixture(scope="module")
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture(scope="module")
def gateway(engine: Engine, recorder: MemoryRecorder) -> Iterator[str]:
    """Before the real server."""
    backend = Backend(name="real", kind=BackendKind.OPENAI, url=engine.url)
    with served(create_gateway(backend, recorder, SystemClock())) as url:
        yield url


def plain(value: Any) -> Any:
    """An answer without what is of the moment."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name not in OF_THE_MOMENT}
    return [plain(one) for one in value] if isinstance(value, list) else value


def asked(url: str, model: str, prompt: str, *, stream: bool) -> Any:
    """A chat at temperature 0 with a seed of its own, as the client of people's programs asks."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            seed=7,
            max_tokens=24,
            stream=stream,
        )
        if not stream:
            return plain(json.loads(answer.model_dump_json()))
        return [plain(json.loads(chunk.model_dump_json())) for chunk in answer]


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_equal_direct_and_through_the_gateway(
    engine: Engine, gateway: str, stream: bool
) -> None:
    """At temperature 0 and with a fixed seed, object for object."""
    for prompt in PROMPTS:
        direct = asked(engine.url, engine.model, prompt, stream=stream)
        assert asked(gateway, engine.model, prompt, stream=stream) == direct
        assert direct


async def test_every_answer_left_its_record(recorder: MemoryRecorder) -> None:
    """With the tokens that the server told."""
    timelines = await recorder.all(2 * len(PROMPTS))
    for timeline in timelines:
        assert timeline.status is Status.OK
        assert timeline.tokens_source == "usage"
        assert (timeline.first_token_ns is not None) is timeline.streamed
