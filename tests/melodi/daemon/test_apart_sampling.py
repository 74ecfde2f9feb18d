"""A daemon whose meters are read in a process of its own."""

import os
import signal
from pathlib import Path

import pytest
from powercap_tree import PowercapTree
from waiting import PATIENCE_SECONDS, until

from melodi.clock import SystemClock
from melodi.config import BackendSettings, Collectors, Database, Sampling, Settings
from melodi.daemon.running import running
from melodi.energy.record import Quality, Status
from melodi.errors import ConfigError
from melodi.inference.backends.base import RequestFacts
from melodi.inference.recording import new_timeline

CLOCK = SystemClock()


def settings_for(folder: Path, tree: PowercapTree, use: str | list[str] = "auto") -> Settings:
    return Settings(
        host="test",
        database=Database(url=f"sqlite:///{folder / 'melodi.db'}"),
        sampling=Sampling(rapl_period="10ms", process=True),
        collectors=Collectors(use=use, sysfs_root=tree.root),
        backends=[BackendSettings(name="b", kind="vllm", url="http://127.0.0.1:9")],
    )


async def test_a_request_in_which_the_process_dies_keeps_its_joules(
    tmp_path: Path, tree: PowercapTree
) -> None:
    """The fault is said while it lasts, the counter knows the pause, and the record closes."""
    tree.add("intel-rapl:0", "package-0")
    with tree.drawing({"intel-rapl:0": 100.0}):
        async with running(settings_for(tmp_path, tree), clock=CLOCK) as runtime:
            assert [one["source"] for one in runtime.domains()] == ["rapl:powercap"]
            timeline = new_timeline(runtime.backend("b"), CLOCK, facts=RequestFacts(model="m"))
            runtime.books.begin(timeline)
            edges = runtime.sampler.curves["package:0"].edges
            await until(lambda: len(edges) > 20)
            os.kill(runtime.sampler._process.pid, signal.SIGKILL)
            await until(runtime.faults)
            assert "the process that reads the meters has ended" in runtime.faults()[0]
            await until(lambda: not runtime.faults())
            after = len(edges)
            await until(lambda: len(edges) > after + 20)
            timeline.end_ns = CLOCK.monotonic_ns()
            timeline.status, timeline.http_status, timeline.reached = Status.OK, 200, True
            runtime.books.end(timeline)
            record = await runtime.books.wait_final(timeline.id, PATIENCE_SECONDS)
            (line,) = runtime.store.ledger()
    assert record is not None
    assert record.quality in (Quality.MEASURED, Quality.GAP)
    assert line.unmeasured_seconds == 0
    assert line.measured_joules >= 100 * record.duration_seconds
    assert abs(line.residual_joules) <= 1e-9 * line.measured_joules


async def test_a_meter_that_does_not_exist_stops_the_start(
    tmp_path: Path, tree: PowercapTree
) -> None:
    """The message names it, as it does without a process."""
    with pytest.raises(ConfigError, match=r"collectors\.use: no collector is called 'nvlm'"):
        async with running(settings_for(tmp_path, tree, ["nvlm"]), clock=CLOCK):
            pass
