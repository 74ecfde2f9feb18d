"""A prompt sent through the gateway to a simulated server is seen alike on both ways."""

import pytest
from scripted_server import MemoryRecorder, served

from melodi.clock import SystemClock
from melodi.energy.record import Status
from melodi.gateway.app import create_gateway
from melodi.inference.dispatch import Dispatcher
from melodi.inference.request import Backend, BackendKind, PromptRequest
from melodi.simulator.launch import simulator_in_thread
from melodi.simulator.settings import SimulatorSettings

SAME = (
    "model prompt response status finish_reason input_tokens output_tokens cached_input_tokens "
    "tokens_source backend_id load_seconds prefill_seconds decode_seconds queue_seconds streamed"
)


@pytest.mark.parametrize("kind", ["ollama", "vllm"])
async def test_gateway_and_dispatch_see_the_same_request(kind: str) -> None:
    """Eight at once: tokens, text, the engine's times and the end agree, record by record."""
    sent, passed, clock = MemoryRecorder(), MemoryRecorder(), SystemClock()
    settings = SimulatorSettings(load_seconds=0.05, request_metrics=True)
    model = settings.models[0]
    with simulator_in_thread(kind, settings=settings) as simulator:  # type: ignore[arg-type]
        backend = Backend(name="sim", kind=BackendKind(kind), url=simulator.url)
        with served(create_gateway(backend, passed, clock)) as url:
            through = Backend(name="sim", kind=BackendKind(kind), url=url)
            requests = [
                PromptRequest(
                    backend=through, model=model, prompt=f"tell {n}", options={"max_tokens": 4 + n}
                )
                for n in range(8)
            ]
            async with Dispatcher(sent, clock) as dispatcher:
                await dispatcher.dispatch_all(
                    requests, concurrency=8, on_done=lambda request, timeline: None
                )
            await passed.all(8)
    by_prompt = {timeline.prompt: timeline for timeline in passed.ended}
    assert len(by_prompt) == len(sent.ended) == 8
    for timeline in sent.ended:
        other = by_prompt[timeline.prompt]
        assert timeline.status is Status.OK
        for name in SAME.split():
            assert getattr(timeline, name) == getattr(other, name), name
        assert timeline.output_tokens == 4 + int((timeline.prompt or "").split()[1])
