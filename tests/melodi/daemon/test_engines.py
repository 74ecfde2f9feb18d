"""Step counters of vLLM are read while they can tell something, and make energies better."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from scripted_server import SeenRequest, Step, response, scripted
from structlog.testing import capture_logs
from waiting import until

from melodi.clock import SystemClock
from melodi.daemon import engines
from melodi.daemon.engines import EngineWatch
from melodi.daemon.serve import Served, served
from melodi.energy.engine import EngineSteps
from melodi.energy.ledger import PREFILL_BY_STEPS
from melodi.inference.engine_meter import EngineCounters
from melodi.inference.request import Backend, BackendKind
from melodi.inference.timeline import RequestTimeline
from melodi.simulator.launch import default_settings, simulator_in_thread
from melodi.store.queries import RequestFilter

CLOCK = SystemClock()
AT_ONCE, SLOTS, TOKENS = 8, 2, 100


class Books:
    """Takes what a watch passes on."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.steps: list[EngineSteps] = []

    def begin(self, timeline: RequestTimeline) -> None:
        self.heard.append(("begin", timeline.id))

    def end(self, timeline: RequestTimeline) -> None:
        self.heard.append(("end", timeline.id))


class Scene:
    """A watch on a scripted server, whose counter grows by ten with every reading."""

    def __init__(self) -> None:
        self.status = "200 OK"
        self.readings = 0
        self.alone = True
        """Whether a single process counts."""
        self.books = Books()

    def answer(self, _: SeenRequest) -> list[Step]:
        self.readings += 1
        page = f'vllm:iteration_tokens_total_count{{engine="0"}} {10 * self.readings}\n'
        page += "process_start_time_seconds 1.0\n" * self.alone
        return [response(page.encode(), status=self.status)]

    @asynccontextmanager
    async def watch(self, kind: BackendKind = BackendKind.VLLM) -> AsyncIterator[EngineWatch]:
        async with scripted(self.answer) as server:
            backend = Backend(name="b", kind=kind, url=server.url)
            watch = EngineWatch(
                self.books, [backend], clock=CLOCK, on_steps=self.books.steps.append
            )
            task = asyncio.create_task(watch.run())
            await asyncio.sleep(0)
            try:
                yield watch
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def until_read(self, times: int) -> None:
        await until(lambda: self.readings >= times)


def timeline(name: str, *, streamed: bool) -> RequestTimeline:
    return RequestTimeline(
        id=name,
        backend="b",
        backend_kind="vllm",
        wall_ns=0,
        sent_ns=CLOCK.monotonic_ns(),
        streamed=streamed,
    )


@contextmanager
def running(watch: EngineWatch, name: str, *, streamed: bool) -> Iterator[None]:
    one = timeline(name, streamed=streamed)
    watch.begin(one)
    yield
    one.end_ns = CLOCK.monotonic_ns()
    watch.end(one)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have no seconds to spare."""
    monkeypatch.setattr(engines, "PERIOD_SECONDS", 0.02)
    monkeypatch.setattr(engines, "RETRY_SECONDS", 0.02)


@pytest.mark.usefixtures("often")
async def test_counters_are_read_while_somebody_is_served_unseen_and_once_more() -> None:
    """Every timeline goes on to the books; when nobody is served any more, nobody is asked."""
    scene = Scene()
    async with scene.watch() as watch:
        with running(watch, "r", streamed=False):
            await scene.until_read(3)
            during = scene.readings
        await until(lambda: not watch._engines["b"].meter.is_owed)
        # The server may have been asked and not have answered: that is the last one.
        last = scene.readings
        await asyncio.sleep(0.2)
        assert scene.readings <= last + 1
        assert scene.books.heard == [("begin", "r"), ("end", "r")]
        # Never unknown: what came late on a machine with much to do is told with the next.
        told = [one.steps or 0 for one in scene.books.steps]
        assert all(one.steps is not None for one in scene.books.steps)
        assert 10 in told
        assert 10 * (during - 2) <= sum(told) <= 10 * scene.readings


@pytest.mark.usefixtures("often")
async def test_nobody_is_asked_who_has_no_counters() -> None:
    """Other servers than vLLM tell no steps."""
    scene = Scene()
    async with scene.watch(BackendKind.OPENAI) as watch:
        with running(watch, "r", streamed=False):
            await asyncio.sleep(0.2)
    assert scene.readings == 0
    assert scene.books.heard == [("begin", "r"), ("end", "r")]


@pytest.mark.usefixtures("often")
async def test_counters_that_go_are_said_once_and_so_is_their_return() -> None:
    """What was not read is unknown, and the books are told so at once."""
    scene = Scene()
    with capture_logs() as logs:
        async with scene.watch() as watch:
            with running(watch, "r", streamed=False):
                await scene.until_read(3)
                scene.status = "503 Busy"
                await scene.until_read(scene.readings + 3)
                scene.status = "200 OK"
                await scene.until_read(scene.readings + 3)
    said = [one["event"] for one in logs if one["event"].startswith("engine_steps")]
    assert said == ["engine_steps_unknown", "engine_steps_known_again"]
    assert [one.steps for one in scene.books.steps].count(None) == 1


async def test_a_reading_that_was_answered_slowly_is_followed_by_another_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not a period later: by then too much may be unknown."""
    monkeypatch.setattr(engines, "PERIOD_SECONDS", 0.02)
    readings = 0

    async def read(*_: Any) -> EngineCounters:
        nonlocal readings
        readings += 1
        if readings == 2:
            monkeypatch.setattr(engines, "PERIOD_SECONDS", 1000)
        return EngineCounters(
            at_ns=CLOCK.monotonic_ns(),
            half_width_ns=10**9 if readings == 2 else 0,
            process=1.0,
            steps={"0": readings},
            prefill_tokens=0,
            output_tokens=0,
        )

    monkeypatch.setattr(engines, "read_counters", read)
    scene = Scene()
    async with scene.watch() as watch:
        with running(watch, "r", streamed=False):
            async with asyncio.timeout(10):
                while readings < 3:
                    await asyncio.sleep(0.005)
    assert [one.steps for one in scene.books.steps] == [0, 2]


@pytest.mark.usefixtures("often")
async def test_a_server_whose_counters_mislead_is_asked_seldom_and_said_once() -> None:
    """Several API servers add theirs up: asking again would only take their time."""
    scene = Scene()
    scene.alone = False
    with capture_logs() as logs:
        async with scene.watch() as watch:
            for name in ("a", "b", "c"):
                with running(watch, name, streamed=False):
                    await scene.until_read(1)
                    await asyncio.sleep(0.1)
    assert scene.readings == 1
    said = [one["reason"] for one in logs if one["event"] == "engine_steps_unknown"]
    assert len(said) == 1
    assert "--api-server-count 1" in said[0]
    assert scene.books.steps == []


@pytest.fixture
async def crowded(stage: Any) -> AsyncIterator[tuple[Served, Any]]:
    """A daemon before a vLLM with two slots, on a sensor that is renewed often."""
    quick = replace(default_settings("vllm"), max_running=SLOTS, refresh_ns=20_000_000)
    with simulator_in_thread("vllm", settings=quick) as simulator:
        backends = [
            one.model_copy(update={"url": simulator.url}) if one.name == "sim" else one
            for one in stage.settings.backends
        ]
        stage.simulator = simulator
        soon = stage.settings.attribution.model_copy(update={"idle_quiet": 100_000_000})
        changes = {"backends": backends, "attribution": soon}
        stage.settings = stage.settings.model_copy(update=changes)
        async with served(stage.settings, clock=CLOCK, probes=stage.probes()) as daemon:
            await until(lambda: daemon.runtime.books.idle_watts)
            yield daemon, simulator


async def ask(daemon: Served, session: aiohttp.ClientSession) -> str:
    """An answer that comes whole; gives its record's id."""
    url = daemon.gateway_urls["sim"] + "/v1/completions"
    asked = {"model": "simulated", "prompt": "Count to a hundred.", "max_tokens": TOKENS}
    async with session.post(url, json=asked) as answer:
        await answer.read()
        return answer.headers["X-Melodi-Request-Id"]


@pytest.mark.parametrize("stage", ["vllm"], indirect=True)
async def test_equal_requests_cost_the_same_though_most_of_them_waited(
    crowded: tuple[Served, Any],
) -> None:
    """Eight at once for two slots, none streamed: by time since sending the last paid fourfold."""
    daemon, simulator = crowded
    async with aiohttp.ClientSession() as session:
        # From then on there is a reading to compare the next one with.
        await ask(daemon, session)
        before = simulator.core.totals()
        names = await asyncio.gather(*(ask(daemon, session) for _ in range(AT_ONCE)))
        records = []
        for name in names:
            async with session.get(f"{daemon.api_url}/v1/requests/{name}?wait=60") as found:
                records.append(await found.json())
    after = simulator.core.totals()
    true = (after.active_joules - before.active_joules) / AT_ONCE
    assert not any(one["provisional"] for one in records)
    for record in records:
        # By time the first would pay 0.4 of that and the last 1.6; what is late blurs it a little.
        assert record["active_joules"] == pytest.approx(true, rel=0.4)
        assert PREFILL_BY_STEPS in record["quality_reasons"]
        assert 0 < record["prefill_joules"] < record["active_joules"] / 4
        assert record["time_to_first_token_seconds"] is None
    idle = [one["idle_share_joules"] for one in records]
    assert max(idle) < 1.5 * min(idle)
    page = await asyncio.to_thread(daemon.runtime.store.page, RequestFilter())
    assert len(page.items) == AT_ONCE + 1
