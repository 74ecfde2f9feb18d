"""A vLLM server's counters are read from its /metrics, or it is said why not."""

import asyncio

import pytest
from scripted_server import response, scripted

from melodi.clock import SystemClock
from melodi.inference.describe import session_with
from melodi.inference.engine_counters import NoCounters, counters_in, read_counters
from melodi.inference.engine_meter import EngineCounters
from melodi.inference.request import Backend, BackendKind
from melodi.simulator.core import Core
from melodi.simulator.jobs import Submission
from melodi.simulator.metrics import exposition
from melodi.simulator.settings import SimulatorSettings

PAGE = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 3.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 300.0
vllm:iteration_tokens_total_count{engine="1",model_name="m"} 7.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 3000.0
vllm:iteration_tokens_total_created{engine="0",model_name="m"} 1.795e+09
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 500.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 20.0
# TYPE vllm:prompt_tokens_cached_total counter
vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 120.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 2500.0
"""


def test_steps_are_told_by_engine_and_tokens_in_sum() -> None:
    """Of prompts, those that were computed; what else stands on the page does not matter."""
    assert counters_in(PAGE, at_ns=7) == EngineCounters(
        at_ns=7, steps={"0": 300, "1": 7}, prefill_tokens=400, output_tokens=2500
    )


def test_the_simulator_tells_its_true_steps() -> None:
    """As many as its requests were in, one at a time."""
    core = Core(SimulatorSettings(), loaded=("simulated", 8192))
    asked = Submission(model="simulated", context_tokens=8192, prompt=range(50), output_tokens=20)
    request = core.submit(asked, 0)
    core.advance(10**10)
    found = counters_in(exposition(core).decode(), at_ns=0)
    assert found.steps == {"0": core.truth(request).steps}
    assert (found.prefill_tokens, found.output_tokens) == (50, 20)


@pytest.mark.parametrize(
    "page",
    ["", "llamacpp:prompt_tokens_total 7\n", 'vllm:iteration_tokens_total_count{engine="0} 3\n'],
)
def test_a_page_without_steps_says_so(page: str) -> None:
    """Another server, or one that is not understood: unknown, not 0."""
    with pytest.raises(NoCounters, match="metrics"):
        counters_in(page, at_ns=0)


async def test_a_server_is_asked_with_its_key_and_its_refusal_is_told() -> None:
    """The time is that of the answer's middle."""
    pages = [response(PAGE.encode()), response(b"{}", status="404 Not Found")]
    clock = SystemClock()
    async with scripted(lambda _: [pages.pop(0)]) as server:
        backend = Backend(name="b", kind=BackendKind.VLLM, url=server.url, api_key="k")
        before_ns = clock.monotonic_ns()
        async with session_with(backend) as session:
            found = await read_counters(session, backend, clock)
            assert before_ns < found.at_ns < clock.monotonic_ns()
            with pytest.raises(NoCounters, match="404"):
                await read_counters(session, backend, clock)
        assert b"Authorization: Bearer k" in server.requests[0].head


class SlowClock(SystemClock):
    """A clock by which everything takes a second."""

    def __init__(self) -> None:
        self._now_ns = 0

    def monotonic_ns(self) -> int:
        self._now_ns += 1_000_000_000
        return self._now_ns


async def test_an_answer_that_came_late_is_no_reading() -> None:
    """Nobody can say when the counters stood so."""
    async with scripted([response(PAGE.encode())]) as server:
        backend = Backend(name="b", kind=BackendKind.VLLM, url=server.url)
        async with session_with(backend) as session:
            with pytest.raises(NoCounters, match="long"):
                await asyncio.wait_for(read_counters(session, backend, SlowClock()), 10)
