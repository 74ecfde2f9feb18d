"""Asks a vLLM server for the counters of its engines."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from melodi.clock import NS_PER_SECOND, Clock
from melodi.inference.engine_meter import EngineCounters
from melodi.inference.request import Backend

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_SECONDS = 1
LATEST_NS = NS_PER_SECOND // 4
"""An answer that took longer does not tell well enough when the counters stood so."""
STEPS = "vllm:iteration_tokens_total_count"
PROMPT, CACHED = "vllm:prompt_tokens_total", "vllm:prompt_tokens_cached_total"
OUTPUT = "vllm:generation_tokens_total"
NAMES = (STEPS, PROMPT, CACHED, OUTPUT)


class NoCounters(Exception):
    """A server told nothing of its engines' steps; the message says what it did instead."""


class LateCounters(NoCounters):
    """The answer took long; the next one may not."""


async def read_counters(
    session: "aiohttp.ClientSession", backend: Backend, clock: Clock
) -> EngineCounters:
    """The counters now, as of the middle between asking and the answer.

    Raises NoCounters where there are none, LateCounters where they say nothing of now, and
    aiohttp's errors.
    """
    import aiohttp

    url, timeout = f"{backend.url}/metrics", aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    asked_ns = clock.monotonic_ns()
    async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
        text = await answer.text()
        answered_ns = clock.monotonic_ns()
        if answer.status != 200:
            raise NoCounters(f"it answers /metrics with HTTP status {answer.status}")
    if answered_ns - asked_ns > LATEST_NS:
        raise LateCounters("it takes long to answer /metrics")
    return counters_in(text, at_ns=(asked_ns + answered_ns) // 2)


def counters_in(text: str, *, at_ns: int) -> EngineCounters:
    """The counters in a page of Prometheus' text format. Raises NoCounters where they are not."""
    steps: dict[str, float] = {}
    sums: dict[str, float] = defaultdict(float)
    for sample in _samples(text.splitlines()):
        if sample.name == STEPS:
            engine = sample.labels.get("engine", "")
            steps[engine] = steps.get(engine, 0.0) + sample.value
        else:
            sums[sample.name] += sample.value
    if not steps:
        raise NoCounters("its /metrics has no vllm:iteration_tokens_total")
    return EngineCounters(
        at_ns=at_ns,
        steps=steps,
        prefill_tokens=sums[PROMPT] - sums[CACHED],
        output_tokens=sums[OUTPUT],
    )


def _samples(lines: Iterable[str]) -> Iterator[Sample]:
    """What is asked for of a page, of which the rest need not be read: it is long."""
    wanted = "\n".join(line for line in lines if line.startswith(NAMES))
    try:
        for family in text_string_to_metric_families(wanted):
            yield from family.samples
    except ValueError as error:
        raise NoCounters(f"its /metrics cannot be read: {error}") from error
