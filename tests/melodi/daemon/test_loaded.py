"""For how long models were loaded, as a daemon sees it."""

from typing import Any

import pytest
from scripted_server import SeenRequest, Step, response, scripted
from waiting import PATIENCE_SECONDS

from collectors.base import Domain, Kind, Measure, Origin
from melodi.clock import NS_PER_SECOND, SystemClock, VirtualClock
from melodi.config import BackendSettings
from melodi.daemon.backends import Backends
from melodi.daemon.loaded import LoadedModels
from melodi.daemon.serve import Served, served
from melodi.inference.request import PromptRequest
from melodi.store.database import open_engine
from melodi.store.hosts import HostStore
from melodi.store.loaded import LoadedMinute

DEVICE = "gpu:SIMULATED-0"


def gpu(name: str, kind: Kind = Kind.GPU) -> Domain:
    return Domain(
        name=name,
        kind=kind,
        scope="gpu",
        source="test",
        origin=Origin.SENSOR,
        measure=Measure.COUNTER,
        description="a device",
    )


class Scene:
    """A backend on two GPUs and a processor, and what was kept of it."""

    def __init__(self, url: str) -> None:
        self.clock = VirtualClock()
        self.kept: list[LoadedMinute] = []
        domains = [gpu("gpu:a"), gpu("gpu:b"), gpu("package:0", Kind.CPU)]
        settings = BackendSettings(name="b", kind="ollama", url=url)
        self.models = LoadedModels(
            Backends([settings], domains),
            domains=lambda: domains,
            clock=self.clock,
            keep=self.kept.extend,
        )

    async def look(self, after_seconds: float) -> None:
        self.clock.advance(round(after_seconds * NS_PER_SECOND))
        await self.models.look()

    def seconds(self, model: str, domain: str = "gpu:a") -> dict[int, float]:
        found: dict[int, float] = {}
        for one in self.kept:
            if (one.model, one.domain) == (model, domain):
                found[one.minute] = found.get(one.minute, 0.0) + one.seconds
        return found


@pytest.fixture
def held() -> dict[str, int]:
    """The models that the backend holds, with their memory."""
    return {}


async def test_models_are_counted_by_minute_while_they_are_held(held: dict[str, int]) -> None:
    """To the second across minutes, spread over its GPUs; what is gone counts no more."""

    def answer(_: SeenRequest) -> list[Step]:
        models = ",".join(f'{{"name":"{n}","size_vram":{size}}}' for n, size in held.items())
        return [response(f'{{"models":[{models}]}}'.encode())]

    async with scripted(answer) as server:
        scene = Scene(server.url)
        begin = scene.clock.wall_ns() // (60 * NS_PER_SECOND)
        held |= {"big": 8, "small": 2}
        await scene.look(0)
        assert scene.kept == []
        for _ in range(4):
            await scene.look(10)
        del held["small"]
        for _ in range(4):
            await scene.look(10)
    assert scene.seconds("big") == {begin: 60.0, begin + 1: 20.0}
    assert scene.seconds("big", "gpu:b") == scene.seconds("big")
    assert scene.seconds("small") == {begin: 50.0}
    assert scene.seconds("") == {begin: 60.0, begin + 1: 20.0}
    sizes = {
        (one.model, one.vram_byte_seconds / one.seconds)
        for one in scene.kept
        if one.vram_byte_seconds is not None
    }
    assert sizes == {("big", 4.0), ("small", 1.0)}
    assert {one.domain for one in scene.kept} == {"gpu:a", "gpu:b"}


async def test_after_a_long_pause_nothing_is_claimed(held: dict[str, int]) -> None:
    """A daemon that was stopped does not know what was loaded meanwhile."""

    def answer(_: SeenRequest) -> list[Step]:
        return [response(b'{"models":[{"name":"big","size_vram":8}]}')]

    async with scripted(answer) as server:
        scene = Scene(server.url)
        await scene.look(0)
        await scene.look(61)
        assert scene.kept == []
        await scene.look(10)
    assert sum(scene.seconds("big").values()) == 10.0


async def test_a_daemon_tells_what_its_models_cost_to_keep(daemon: Served, stage: Any) -> None:
    """After a prompt the model is loaded, and its idle joules stand beside its active ones."""
    runtime = daemon.runtime
    asked = PromptRequest(
        backend=runtime.backend("sim"),
        model="simulated",
        prompt="a word about rain",
        options={"max_tokens": 20},
    )
    answer = await runtime.dispatch(asked)
    await runtime.final(answer.id, PATIENCE_SECONDS)
    await runtime.loaded.look()
    await runtime.loaded.look()
    by_model = {line.model: line for line in runtime.store.ledger(by="model")}
    assert by_model["simulated"].active_joules > 0
    assert by_model["simulated"].domain == DEVICE
    total = sum(line.active_joules for line in by_model.values())
    assert total == pytest.approx(sum(one.active_joules for one in runtime.store.ledger()))


async def test_idle_power_is_known_again_after_a_restart(stage: Any) -> None:
    """The floor by which loaded models are charged is not learned anew at each start."""
    async with served(stage.settings, clock=SystemClock(), probes=stage.probes()):
        pass
    engine = open_engine(stage.settings.database.url)
    # So low that only many quiet seconds could raise it.
    HostStore(engine).keep_idle_watts(stage.settings.host, {DEVICE: 1.0})
    engine.dispose()
    async with served(stage.settings, clock=SystemClock(), probes=stage.probes()) as daemon:
        assert daemon.runtime.books.idle_watts == {DEVICE: 1.0}
