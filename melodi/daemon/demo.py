"""The demonstration: a daemon in front of a simulated backend, whose true joules are known."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from collectors.registry import Probe, State
from collectors.simulated import SimulatedCollector
from melodi.clock import SystemClock
from melodi.config import Api, BackendSettings, Database, Settings
from melodi.daemon.serve import Served, served
from melodi.datasets.prompts import Prompt, load
from melodi.energy.record import EnergyRecord
from melodi.errors import BackendError, ConfigError
from melodi.serving import bind
from melodi.simulator.launch import RunningSimulator, simulator_in_thread

MODEL = "simulated"
BACKEND = "simulator"
CONCURRENCY = 4
IDLE_WAIT_SECONDS = 15.0
FINAL_SECONDS = 30.0
ANY_PORT = "127.0.0.1:0"


class DemoSettings(Settings):
    """Settings that the environment cannot change: they would lead to the user's own database."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  the names are the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Measured:
    """One prompt's record and what the simulator knows."""

    prompt: Prompt
    record: EnergyRecord
    true_joules: float


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A daemon in front of a simulator."""

    simulator: RunningSimulator
    daemon: Served


@contextlib.asynccontextmanager
async def demonstration() -> AsyncIterator[Demonstration]:
    """Simulator, sampler, gateway, SQLite and API, in a folder that goes with the context."""
    clock = SystemClock()
    with (
        tempfile.TemporaryDirectory(prefix="melodi-demo-") as folder,
        simulator_in_thread("vllm", clock=clock) as simulator,
    ):
        sensor = simulator.sensor
        meter = SimulatedCollector([(sensor.domain, sensor.read)], now_ns=clock.monotonic_ns)
        backend = BackendSettings(name=BACKEND, kind="vllm", url=simulator.url, listen=ANY_PORT)
        settings = DemoSettings(
            host="demo",
            api=Api(listen=_free_or_any(Api().listen)),
            database=Database(url=f"sqlite:///{Path(folder) / 'demo.db'}"),
            backends=[backend],
        )
        probes = [Probe(name="simulated", state=State.OK, collector=meter)]
        async with served(settings, clock=clock, probes=probes) as daemon:
            await _idle_known(daemon)
            yield Demonstration(simulator, daemon)


async def send_prompts(
    demo: Demonstration, count: int, *, on_done: Callable[[], None]
) -> list[Measured]:
    """Send bundled prompts through the gateway, a few at a time; their final records and truths."""
    prompts = load("melodi-60").prompts
    chosen = [prompts[k % len(prompts)] for k in range(count)]
    slots = asyncio.Semaphore(CONCURRENCY)
    async with aiohttp.ClientSession(demo.daemon.gateway_urls[BACKEND]) as session:

        async def one(prompt: Prompt) -> tuple[str, str]:
            async with slots:
                ids = await _stream(session, prompt)
            on_done()
            return ids

        ids = await asyncio.gather(*(one(prompt) for prompt in chosen))
    return [
        await _measured(demo, prompt, request_id, simulated_id)
        for prompt, (request_id, simulated_id) in zip(chosen, ids, strict=True)
    ]


async def books_of(demo: Demonstration, measured: Sequence[Measured]) -> dict[str, float]:
    """Where all measured joules went: the meter's by the ledger, the requests' by their records.

    The sum is formed from both, so a lost record leaves a residual.
    """
    store = demo.daemon.runtime.store
    lines = await asyncio.to_thread(store.ledger)
    total = sum(line.measured_joules for line in lines)
    idle = sum(line.idle_joules for line in lines)
    other = sum(line.foreign_joules + line.unattributed_joules for line in lines)
    attributed = sum(
        joules
        for one in measured
        for joules in (one.record.energy_joules, one.record.load_joules)
        if joules is not None
    )
    residual = total - attributed - idle - other
    return {
        "measured_joules": total,
        "attributed_joules": attributed,
        "idle_joules": idle,
        "other_joules": other,
        "residual_ratio": abs(residual) / total if total else 0.0,
    }


async def _stream(session: aiohttp.ClientSession, prompt: Prompt) -> tuple[str, str]:
    """Send one prompt as any client would; the ids that MELODI and the simulator gave it."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt.text}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"X-Melodi-Tags": f"prompt_id={prompt.id}"}
    async with session.post("/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        if response.status != 200:
            raise BackendError(f"the simulator answered with {response.status}; see the log")
        return response.headers["X-Melodi-Request-Id"], response.headers["X-Simulator-Id"]


async def _measured(
    demo: Demonstration, prompt: Prompt, request_id: str, simulated_id: str
) -> Measured:
    record = await demo.daemon.runtime.final(request_id, FINAL_SECONDS)
    url = f"{demo.simulator.url}/simulator/requests/{simulated_id}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        truth = await response.json()
    joules = truth["true_active_joules"] + truth["true_idle_share_joules"]
    return Measured(prompt, record, joules)


async def _idle_known(daemon: Served) -> None:
    """Wait until the idle power of the simulated device has been learned."""
    async with asyncio.timeout(IDLE_WAIT_SECONDS):
        while not daemon.runtime.books.idle_watts:  # noqa: ASYNC110  another thread learns it
            await asyncio.sleep(0.05)


def _free_or_any(address: str) -> str:
    try:
        bind(address).close()
    except ConfigError:
        return ANY_PORT
    return address
