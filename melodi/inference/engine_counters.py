"""Asks a vLLM server for the counters of its engines."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from yarl import URL

from melodi.clock import Clock
from melodi.inference.engine_meter import EngineCounters
from melodi.inference.request import Backend

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_SECONDS = 3
STEPS = "vllm:iteration_tokens_total_count"
PROMPT, CACHED = "vllm:prompt_tokens_total", "vllm:prompt_tokens_cached_total"
OUTPUT, DRAFTS = "vllm:generation_tokens_total", "vllm:spec_decode_num_drafts_total"
PROCESS = "process_start_time_seconds"
NAMES = (STEPS, PROMPT, CACHED, OUTPUT, DRAFTS, PROCESS)
PATHS = ("/metrics/?" + urlencode([("name[]", one) for one in NAMES]), "/metrics")
"""Only what is wanted, where that can be asked for: the whole page takes the server six times the
CPU time, in which it serves nobody."""


class NoCounters(Exception):
    """A server told nothing of its engines' steps; the message says what it did instead."""


class MisleadingCounters(NoCounters):
    """They do not count what their names say, as long as the server runs as it does."""


async def read_counters(
    session: "aiohttp.ClientSession", backend: Backend, clock: Clock
) -> EngineCounters:
    """The counters now, as of the middle between asking and the answer.

    Raises NoCounters where there are none, or none that can be believed, and aiohttp's errors.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    for path in PATHS:
        url = URL(backend.url + path, encoded=True)
        asked_ns = clock.monotonic_ns()
        async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
            text = await answer.text()
            answered_ns = clock.monotonic_ns()
        if answer.status == 200 and STEPS in text:
            break
    if answer.status != 200:
        raise NoCounters(f"it answers /metrics with HTTP status {answer.status}")
    half_ns = (answered_ns - asked_ns) // 2
    return counters_in(text, at_ns=asked_ns + half_ns, half_width_ns=half_ns)


def counters_in(text: str, *, at_ns: int, half_width_ns: int = 0) -> EngineCounters:
    """The counters in a page of Prometheus' text format.

    Raises NoCounters where they are not, or where they do not count what their names say.
    """
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
    if PROCESS not in sums:
        raise MisleadingCounters(
            "its /metrics adds up several API servers, each of which counts the steps that it had "
            "tokens from; with --api-server-count 1 they can be told"
        )
    if sums[DRAFTS] > 0:
        raise MisleadingCounters("it decodes speculatively, so that a step gives several tokens")
    return EngineCounters(
        at_ns=at_ns,
        half_width_ns=half_width_ns,
        process=sums[PROCESS],
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
