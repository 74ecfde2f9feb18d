"""What goes wrong around a daemon is said, and ends nothing else."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scripted_server import CUT, scripted
from structlog.testing import capture_logs
from waiting import PATIENCE_SECONDS, until

from collectors.base import Conditions, Domain, Kind, Measure, Reading, Readings
from collectors.registry import Probe, State
from melodi.clock import SystemClock
from melodi.config import Api, BackendSettings, Database, Settings
from melodi.daemon.running import running
from melodi.daemon.runtime import Runtime
from melodi.energy.record import EnergyRecord, Quality, Status
from melodi.inference.backends.base import RequestFacts
from melodi.inference.recording import new_timeline

CLOCK = SystemClock()
MS = 1_000_000


class Package:
    """A CPU of 100 W whose counter is renewed every ms; it hangs on demand."""

    name = "rapl"
    domains = (
        Domain(
            name="package:0",
            kind=Kind.CPU,
            scope="package",
            source="rapl:powercap",
            measure=Measure.COUNTER,
            refresh_ns=MS,
        ),
    )

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()

    def read(self) -> Readings:
        self.goes_on.wait(PATIENCE_SECONDS)
        now_ns = CLOCK.monotonic_ns()
        return Readings((Reading("package:0", now_ns, 0, energy_uj=now_ns // 10),))

    def conditions(self) -> tuple[Conditions, ...]:
        return ()

    def close(self) -> None:
        """Nothing is held open."""


@pytest.fixture
def package() -> Package:
    return Package()


@pytest.fixture
async def runtime(package: Package, tmp_path: Path) -> AsyncIterator[Runtime]:
    settings = Settings(
        host="test",
        api=Api(listen="127.0.0.1:0"),
        database=Database(url=f"sqlite:///{tmp_path / 'melodi.db'}"),
        backends=[BackendSettings(name="b", kind="vllm", url="http://127.0.0.1:9")],
    )
    probes = [Probe(name="rapl", state=State.OK, collector=package)]
    async with running(settings, clock=CLOCK, probes=probes) as one:
        yield one
        package.goes_on.set()


async def request_of(runtime: Runtime, milliseconds: int) -> EnergyRecord:
    """The final record of a request that was served for so long."""
    timeline = new_timeline(runtime.backend("b"), CLOCK, facts=RequestFacts(model="m"))
    runtime.books.begin(timeline)
    await asyncio.sleep(milliseconds / 1000)
    timeline.end_ns = timeline.sent_ns + milliseconds * MS
    timeline.status, timeline.http_status, timeline.reached = Status.OK, 200, True
    runtime.books.end(timeline)
    record = await runtime.books.wait_final(timeline.id, PATIENCE_SECONDS)
    assert record is not None
    return record


async def test_a_request_within_one_poll_is_not_measured(runtime: Runtime) -> None:
    """The counter is renewed every ms, but nobody looks more often than every 100 ms."""
    short, long = await asyncio.gather(request_of(runtime, 20), request_of(runtime, 1_200))
    assert short.quality is Quality.SUB_SENSOR
    assert long.quality is Quality.MEASURED


async def test_a_meter_that_hangs_is_a_fault_and_down_in_the_metrics(
    runtime: Runtime, package: Package
) -> None:
    """The metrics ask, because no sample comes that could tell them."""

    def up() -> float | None:
        return runtime.registry.get_sample_value("melodi_collector_up", {"collector": "rapl"})

    await until(lambda: not runtime.faults() and up() == 1.0)
    package.goes_on.clear()
    await until(runtime.faults)
    assert re.fullmatch(r"rapl has not answered for \d+ s", *runtime.faults())
    assert up() == 0.0
    package.goes_on.set()
    await until(lambda: not runtime.faults() and up() == 1.0)


async def test_a_backend_that_answers_rubbish_ends_nothing(tmp_path: Path) -> None:
    """The housekeeping goes on asking, the view says what is wrong, and the stop raises nothing."""
    async with scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", CUT]) as server:
        settings = Settings(
            host="test",
            database=Database(url=f"sqlite:///{tmp_path / 'melodi.db'}"),
            backends=[BackendSettings(name="b", kind="vllm", url=server.url)],
        )
        async with running(settings, clock=CLOCK, probes=[]) as runtime:
            await until(lambda: server.requests)
            (view,) = await runtime.backends()
    assert "gives no readable answer" in view["error"]


async def test_housekeeping_outlives_a_round_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a round raises is logged, and the next one comes."""
    rounds = 0

    async def look() -> None:
        nonlocal rounds
        rounds += 1
        raise RuntimeError("a bug")

    monkeypatch.setattr("melodi.daemon.running.HOUSEKEEPING_SECONDS", 0.01)
    settings = Settings(
        host="test", database=Database(url=f"sqlite:///{tmp_path / 'melodi.db'}"), backends=[]
    )
    with capture_logs() as logs:
        async with running(settings, clock=CLOCK, probes=[]) as runtime:
            monkeypatch.setattr(runtime.backends_known, "look", look)
            await until(lambda: rounds > 2)
    reasons = [one["reason"] for one in logs if one["event"] == "backends_not_asked"]
    assert reasons == ["RuntimeError('a bug')"] * rounds
