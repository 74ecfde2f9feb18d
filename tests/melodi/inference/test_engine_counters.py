"""A vLLM server's counters are read from its /metrics, or it is said why not."""

import pytest
from scripted_server import SeenRequest, Step, response, scripted

from melodi.clock import SystemClock
from melodi.inference.describe import session_with
from melodi.inference.engine_counters import NAMES, NoCounters, counters_in, read_counters
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
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79528363407e+09
"""
SEVERAL_SERVERS = PAGE.replace("process_start_time_seconds 1.79528363407e+09\n", "")
"""What prometheus_client gives where several processes count together: none of them itself."""


def test_steps_are_told_by_engine_and_tokens_in_sum() -> None:
    """Of prompts, those that were computed; what else stands on the page does not matter."""
    assert counters_in(PAGE, at_ns=7, half_width_ns=2) == EngineCounters(
        at_ns=7,
        half_width_ns=2,
        process=1795283634.07,
        steps={"0": 300, "1": 7},
        prefill_tokens=400,
        output_tokens=2500,
    )


def test_counters_of_several_api_servers_are_not_believed() -> None:
    """Each counts the steps that it had tokens from: of 100 steps two servers make up to 200."""
    with pytest.raises(NoCounters, match="--api-server-count 1"):
        counters_in(SEVERAL_SERVERS, at_ns=0)


def test_steps_of_several_tokens_each_are_not_believed() -> None:
    """With speculative decoding nobody can go back from an answer's end by its tokens."""
    drafts = 'vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} '
    assert counters_in(f"{PAGE}{drafts}0.0\n", at_ns=0).steps
    with pytest.raises(NoCounters, match="speculatively"):
        counters_in(f"{PAGE}{drafts}31.0\n", at_ns=0)


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
    clock = SystemClock()
    status = "200 OK"
    async with scripted(lambda _: [response(PAGE.encode(), status=status)]) as server:
        backend = Backend(name="b", kind=BackendKind.VLLM, url=server.url, api_key="k")
        before_ns = clock.monotonic_ns()
        async with session_with(backend) as session:
            found = await read_counters(session, backend, clock)
            assert before_ns <= found.at_ns - found.half_width_ns
            assert found.at_ns + found.half_width_ns <= clock.monotonic_ns()
            status = "404 Not Found"
            with pytest.raises(NoCounters, match="404"):
                await read_counters(session, backend, clock)
        assert b"Authorization: Bearer k" in server.requests[0].head


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "307 Temporary Redirect"])
async def test_only_what_is_wanted_is_asked_for_and_else_the_whole_page(status: str) -> None:
    """A whole page takes the server time; some give no other, or an empty one."""
    pages = {"/metrics": response(PAGE.encode()), "/metrics/": response(b"", status=status)}

    def answer(asked: SeenRequest) -> list[Step]:
        path = asked.line.split()[1].decode()
        return [pages[path.partition("?")[0]]]

    async with scripted(answer) as server:
        backend = Backend(name="b", kind=BackendKind.VLLM, url=server.url)
        async with session_with(backend) as session:
            assert (await read_counters(session, backend, SystemClock())).steps["0"] == 300
            pages["/metrics/"] = response(PAGE.encode())
            assert (await read_counters(session, backend, SystemClock())).steps["0"] == 300
        lines = [one.line.split()[1] for one in server.requests]
        assert [one.partition(b"?")[0] for one in lines] == [
            b"/metrics/",
            b"/metrics",
            b"/metrics/",
        ]
        assert b"name[]=process_start_time_seconds" in lines[0].replace(b"%5B%5D", b"[]")


def test_of_the_simulator_too_one_can_ask_for_a_part() -> None:
    """As of a real server: names of what is wanted, and nothing else comes."""
    core = Core(SimulatorSettings(), loaded=("simulated", 8192))
    whole, part = exposition(core), exposition(core, names=NAMES)
    assert len(part) < len(whole) / 2
    assert counters_in(part.decode(), at_ns=0) == counters_in(whole.decode(), at_ns=0)
