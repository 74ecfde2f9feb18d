"""A real vLLM: what MELODI reads of its engine is what its answers say, and is what divides."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from real_engine import Engine, real_vllm

from collectors.base import Domain, Kind, Measure, Origin
from collectors.registry import Probe, State
from collectors.simulated import SimulatedCollector
from melodi.clock import SystemClock
from melodi.config import Api, BackendSettings, Database, Settings
from melodi.daemon.serve import Served, served
from melodi.energy.ledger import PREFILL_BY_STEPS
from melodi.inference.describe import describe, session_with
from melodi.inference.engine_counters import counters_in, read_counters
from melodi.inference.engine_meter import EngineCounters
from melodi.inference.request import Backend, BackendKind

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

CLOCK = SystemClock()
ANY_PORT = "127.0.0.1:0"
SLOTS, AT_ONCE, TOKENS = 2, 8, 400
IDLE_WATTS, BUSY_WATTS = 50, 200
SHARED = "Five islands lie in a lake, and each of them has a name of its own. " * 40


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Two slots, and nothing told of single requests but cached tokens."""
    flags = ("--max-num-seqs", str(SLOTS), "--enable-prompt-tokens-details")
    with real_vllm(tmp_path_factory.mktemp("vllm"), *flags) as one:
        yield one


class BusyMeter:
    """A counter of a device that draws more while somebody has asked for something."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._busy_ns, self._since_ns = 0, time.monotonic_ns()

    @property
    def domain(self) -> Domain:
        return Domain(
            name="gpu:BUSY",
            kind=Kind.GPU,
            scope="gpu",
            source="simulated:busy",
            measure=Measure.COUNTER,
            refresh_ns=20_000_000,
            max_power_watts=IDLE_WATTS + BUSY_WATTS,
            origin=Origin.SIMULATOR,
        )

    def read(self, at_ns: int) -> tuple[int, None]:
        with self._lock:
            busy_ns = self._busy_ns + (at_ns - self._since_ns if self._running else 0)
        return (IDLE_WATTS * at_ns + BUSY_WATTS * busy_ns) // 1000, None

    def change(self, by: int) -> None:
        with self._lock:
            now_ns = time.monotonic_ns()
            if self._running:
                self._busy_ns += now_ns - self._since_ns
            self._since_ns, self._running = now_ns, self._running + by


@pytest.fixture
def meter() -> BusyMeter:
    return BusyMeter()


@pytest.fixture
async def daemon(
    vllm: Engine, meter: BusyMeter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    async with daemon_before(vllm, meter, tmp_path) as one:
        yield one


def daemon_before(engine: Engine, meter: BusyMeter, folder: Path) -> Any:
    backend = BackendSettings(name="v", kind="vllm", url=engine.url, listen=ANY_PORT)
    settings = Settings(
        host="test",
        api=Api(listen=ANY_PORT),
        database=Database(url=f"sqlite:///{folder / 'melodi.db'}"),
        backends=[backend],
    )
    soon = settings.attribution.model_copy(update={"idle_quiet": 500_000_000})
    settings = settings.model_copy(update={"attribution": soon})
    collector = SimulatedCollector([(meter.domain, meter.read)], now_ns=CLOCK.monotonic_ns)
    probe = Probe(name="simulated", state=State.OK, collector=collector)
    return served(settings, clock=CLOCK, probes=[probe])


class Client:
    """Asks through the gateway; the meter hears of it."""

    def __init__(self, daemon: Served, meter: BusyMeter, session: aiohttp.ClientSession) -> None:
        self._daemon, self._meter, self._session = daemon, meter, session

    async def ask(
        self, prompt: str, *, stream: bool = False, tokens: int = TOKENS
    ) -> tuple[str, dict[str, Any]]:
        """The id of its record, and what the server says that it used."""
        body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        url = self._daemon.gateway_urls["v"] + "/v1/completions"
        self._meter.change(1)
        async with self._session.post(url, json=body) as answer:
            text = await answer.text()
            assert answer.status == 200, text
        self._meter.change(-1)
        events = text.removesuffix("data: [DONE]\n\n").split("data: ") if stream else [text]
        return answer.headers["X-Melodi-Request-Id"], usage_in(events[-1])

    async def record(self, name: str) -> dict[str, Any]:
        url = f"{self._daemon.api_url}/v1/requests/{name}?wait=30"
        async with self._session.get(url) as found:
            record: dict[str, Any] = await found.json()
        assert not record["provisional"]
        return record

    async def accounts(self) -> list[dict[str, Any]]:
        async with self._session.get(f"{self._daemon.api_url}/v1/ledger") as found:
            items: list[dict[str, Any]] = (await found.json())["items"]
        return items


def usage_in(event: str) -> dict[str, Any]:
    usage: dict[str, Any] = json.loads(event)["usage"]
    return usage


@pytest.fixture
async def client(daemon: Served, meter: BusyMeter) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
        yield Client(daemon, meter, session)


async def counters(engine: Engine) -> EngineCounters:
    backend = Backend(name="v", kind=BackendKind.VLLM, url=engine.url)
    async with session_with(backend) as session:
        return await read_counters(session, backend, CLOCK)


async def test_counters_say_what_answers_say(vllm: Engine, client: Client) -> None:
    """Steps of one request at a time are its tokens; what came from the cache is not computed."""
    for stream in (True, False):
        before = await counters(vllm)
        _, usage = await client.ask("Count.", stream=stream, tokens=100)
        after = await counters(vllm)
        gained = after.since(before)
        assert gained == (100, usage["prompt_tokens"], usage["completion_tokens"])
    before = await counters(vllm)
    prompts = [SHARED + str(number) for number in range(4)]
    found = [await client.ask(prompts[0])]
    found += await asyncio.gather(*(client.ask(one, stream=True) for one in prompts[1:]))
    usages = [usage for _, usage in found]
    cached = sum(one["prompt_tokens_details"]["cached_tokens"] for one in usages)
    gained = (await counters(vllm)).since(before)
    assert gained is not None
    steps, prefill, output = gained
    assert cached > 0
    assert prefill == sum(one["prompt_tokens"] for one in usages) - cached
    assert output == 4 * TOKENS
    assert 4 * TOKENS / SLOTS <= steps < 4 * TOKENS
    for name, usage in found:
        record = await client.record(name)
        assert record["output_tokens"] == usage["completion_tokens"]
        assert record["input_tokens"] == usage["prompt_tokens"]
        assert record["cached_input_tokens"] == usage["prompt_tokens_details"]["cached_tokens"]


async def test_only_what_is_wanted_is_sent(vllm: Engine) -> None:
    """The whole page is long, and says the same."""
    async with aiohttp.ClientSession() as session, session.get(f"{vllm.url}/metrics") as page:
        whole = await page.text()
    told = await counters(vllm)
    known = counters_in(whole, at_ns=told.at_ns, half_width_ns=told.half_width_ns)
    assert told == known
    view = await describe(Backend(name="v", kind=BackendKind.VLLM, url=vllm.url))
    assert (view.metrics, view.metrics_reason, view.error) == (True, None, None)


async def test_equal_answers_cost_about_the_same_though_most_of_them_waited(
    client: Client, daemon: Served
) -> None:
    """Eight for two slots, none streamed: by time since sending the last would pay fourfold."""
    async with asyncio.timeout(60):
        while not daemon.runtime.books.idle_watts:
            await asyncio.sleep(0.05)
    # From then on there is a reading to compare the next one with.
    await client.ask("Count.", tokens=20)
    asked = (client.ask(f"Count to {number}.") for number in range(AT_ONCE))
    records = [await client.record(name) for name, _ in await asyncio.gather(*asked)]
    shares = sorted(one["active_joules"] for one in records)
    assert shares[-1] < 2 * shares[0]
    by_steps = [one for one in records if PREFILL_BY_STEPS in one["quality_reasons"]]
    assert len(by_steps) > AT_ONCE / 2
    assert all(0 < one["prefill_joules"] < one["active_joules"] / 2 for one in by_steps)
    (account,) = await client.accounts()
    assert abs(account["residual_joules"]) <= 1e-9 * account["measured_joules"]


async def test_what_vllm_tells_of_each_request_is_followed(
    meter: BusyMeter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queue, prefill and decode of whole answers, without a guess."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    flags = ("--max-num-seqs", str(SLOTS), "--enable-per-request-metrics")
    with real_vllm(tmp_path, *flags) as engine:
        async with daemon_before(engine, meter, tmp_path) as daemon, aiohttp.ClientSession() as one:
            client = Client(daemon, meter, one)
            async with asyncio.timeout(60):
                while not daemon.runtime.books.idle_watts:
                    await asyncio.sleep(0.05)
            asked = (client.ask(f"Count to {number}.") for number in range(AT_ONCE))
            records = [await client.record(name) for name, _ in await asyncio.gather(*asked)]
    shares = sorted(one["active_joules"] for one in records)
    assert shares[-1] < 2 * shares[0]
    assert max(one["queue_seconds"] for one in records) > 2 * records[0]["decode_seconds"]
    for record in records:
        assert PREFILL_BY_STEPS not in record["quality_reasons"]
        assert 0 < record["prefill_joules"] < record["active_joules"] / 2
