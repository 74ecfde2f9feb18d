"""What only a real card can show; run with `make test-gpu`."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pynvml
import pytest

from benchmarks.gpu.end_to_end.energy import Seen
from benchmarks.gpu.end_to_end.processes import MELODI, ROOT, Engine, daemon, free_port
from benchmarks.gpu.end_to_end.traffic import Target, send
from benchmarks.gpu.probe.load import TorchMachine
from collectors.base import Measure
from collectors.nvml import NvmlCollector
from collectors.refresh import observe_refresh
from collectors.registry import Probe, State
from melodi.clock import SystemClock
from melodi.sampling.sampler import Sampler
from melodi.sampling.settle import cuts_at, energies, first_edges

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

READS_ONLY = ("Get", "IsMig", "nvmlInit", "nvmlShutdown", "nvmlErrorString")
FIRST_COUNTER = 5
"""NVML's number of Volta, the first architecture with an energy counter."""


def melodi(words: list[str], env: dict[str, str]) -> Any:
    """What a command of MELODI prints as JSON."""
    command = [sys.executable, "-c", MELODI, *words]
    ended = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=False, timeout=120)
    assert ended.returncode == 0, f"{words} ended with {ended.returncode}; see its words above"
    return json.loads(ended.stdout)


def test_the_card_is_found_and_has_a_counter(collector: NvmlCollector) -> None:
    """Its UUID is text, its limit is known, and from Volta on energy is counted, not integrated."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    domain = next(one for one in collector.domains if one.name == f"gpu:{uuid}")
    assert isinstance(uuid, str)
    assert domain.max_power_watts
    assert domain.description
    if pynvml.nvmlDeviceGetArchitecture(handle) >= FIRST_COUNTER:
        assert domain.measure is Measure.COUNTER
    assert not collector.unproven


def test_the_counter_moves_at_a_power_that_can_be(
    collector: NvmlCollector, machine: TorchMachine, place: int
) -> None:
    """Two seconds of kernels: it rises, by less than the limit allows and more than nothing."""
    first = collector.read().values[place]
    machine.start(2, None)
    machine.finish()
    last = collector.read().values[place]
    assert first.energy_uj is not None
    assert last.energy_uj is not None
    watts = (last.energy_uj - first.energy_uj) / 1e6 / ((last.at_ns - first.at_ns) / 1e9)
    most_watts = collector.domains[place].max_power_watts
    assert most_watts is not None
    assert 1 < watts <= most_watts


def test_conditions_are_told(collector: NvmlCollector) -> None:
    """Clocks, temperature and limit are numbers that a card has."""
    conditions = collector.conditions()[0]
    assert conditions.sm_clock_mhz
    assert conditions.temperature_celsius
    assert conditions.power_limit_watts


def test_the_refresh_is_no_slower_than_is_assumed(
    collector: NvmlCollector, machine: TorchMachine, place: int
) -> None:
    """Bounds and qualities rest on `refresh_ns`: seen under load it is at most that."""
    machine.start(4, None)
    seen = observe_refresh(collector, 3, now_ns=time.monotonic_ns, sleep=time.sleep)[place]
    machine.finish()
    assert seen.moved
    assert seen.period_ns is not None
    assumed_ns = collector.domains[place].refresh_ns
    assert assumed_ns is not None, f"nothing is assumed; {seen.period_ns / 1e6:.0f} ms were seen"
    assert seen.period_ns <= 1.1 * assumed_ns


async def test_a_window_under_load_is_what_the_counter_gained(
    collector: NvmlCollector, machine: TorchMachine, place: int
) -> None:
    """Beside polls of our own, within one refresh at full power at each end."""
    sampler = Sampler(
        [Probe(name="nvml", state=State.OK, collector=collector)],
        period_of=lambda _: 50_000_000,
        clock=SystemClock(),
        on_sample=lambda _: None,
    )
    sampler.start()
    try:
        await first_edges(sampler.curves)
        machine.start(5, None)
        polling = asyncio.create_task(asyncio.to_thread(polled, collector.domains[place].name, 5.0))
        await asyncio.sleep(0.5)
        start_ns = time.monotonic_ns()
        starts = asyncio.create_task(cuts_at(sampler.curves, start_ns))
        await asyncio.sleep(3.5)
        end_ns = time.monotonic_ns()
        ends = await cuts_at(sampler.curves, end_ns)
        found = energies(sampler.curves, await starts, ends)[collector.domains[place].name]
        seen = await polling
    finally:
        sampler.stop()
        machine.finish()
    truth = seen.joules(start_ns, end_ns)
    assert truth is not None
    assert found.joules is not None
    most_watts = collector.domains[place].max_power_watts
    assert most_watts is not None
    assert found.low_joules is not None
    assert found.high_joules is not None
    refresh_seconds = (collector.domains[place].refresh_ns or 100_000_000) / 1e9
    assert abs(found.joules - truth) <= 2 * refresh_seconds * most_watts
    assert found.low_joules <= truth <= found.high_joules


def polled(domain: str, seconds: float) -> Seen:
    """A card's counter, on the monotonic clock."""
    handle = pynvml.nvmlDeviceGetHandleByUUID(domain.removeprefix("gpu:"))
    lines, last_mj, before_ns = [], None, time.monotonic_ns()
    end_ns = before_ns + round(seconds * 1e9)
    while before_ns < end_ns:
        energy_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        now_ns = time.monotonic_ns()
        if energy_mj != last_mj:
            lines.append(f"E {(before_ns + now_ns) // 2} {energy_mj}\n")
        last_mj, before_ns = energy_mj, now_ns
        time.sleep(0.002)
    return Seen.of(lines)


def test_nothing_is_asked_that_could_change_the_card(
    collector: NvmlCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every function of the driver that opening, reading and closing reach only reads."""
    asked: set[str] = set()
    find = pynvml._nvmlGetFunctionPointer

    def noting(name: str) -> Any:
        asked.add(name)
        return find(name)

    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer", noting)
    opened = NvmlCollector(now_ns=time.monotonic_ns)
    opened.read()
    opened.conditions()
    opened.running_processes()
    opened.close()
    assert "nvmlDeviceGetTotalEnergyConsumption" in asked
    assert not {name for name in asked if not any(word in name for word in READS_ONLY)}


def test_measure_tells_the_energy_of_kernels(
    kernels: list[str], collector: NvmlCollector, place: int, env: dict[str, str]
) -> None:
    """Four seconds of matrices: measured, and dearer than idle."""
    idle = melodi(["measure", "--json", "--", "sleep", "3"], env)
    busy = melodi(["measure", "--json", "--", *kernels], env)
    name = collector.domains[place].name
    assert busy["domains"][name]["quality"] == "measured"
    assert busy["domains"][name]["mean_watts"] > idle["domains"][name]["mean_watts"]
    assert busy["joules"] >= busy["domains"][name]["joules"]


def test_the_doctor_says_that_this_can_be_measured(
    collector: NvmlCollector, env: dict[str, str]
) -> None:
    """NVML is ok, every card is named, and its refresh was seen."""
    told = melodi(["doctor", "--json"], env)
    assert told["measurable"]
    nvml = next(one for one in told["collectors"] if one["name"] == "nvml")
    assert nvml["state"] == "ok"
    assert len(nvml["domains"]) == len(collector.domains)


def test_a_served_request_has_a_record_with_its_joules(
    device: str,
    python: str,
    collector: NvmlCollector,
    place: int,
    env: dict[str, str],
    tmp_path: Path,
) -> None:
    """A prompt through the gateway to a real server on this card."""
    model, port = tmp_path / "tiny", free_port()
    maker = ROOT / "benchmarks/gpu/end_to_end/make_model.py"
    corpus = ROOT / "prompts/melodi-60.jsonl"
    subprocess.run([python, maker, model, "tiny", corpus, device], env=env, check=True)
    engine = Engine(python, device, env)
    with (
        engine.serving(model, port, tmp_path / "engine.log", batching=True) as url,
        daemon(tmp_path / "daemon", url, device=collector.domains[place].name, env=env) as one,
    ):
        target = Target(one.gateway, str(model), 64)
        send(target, "warm up")
        sent = send(target, "Why is the sky blue?")
        assert sent.error is None
        record = one.get(f"/v1/requests/{sent.id}?wait=30")
    assert not record["provisional"]
    assert record["status"] == "ok"
    assert record["output_tokens"] == sent.output_tokens
    assert record["gpu_joules"] > 0
    assert record["low_joules"] <= record["energy_joules"] <= record["high_joules"]
    assert record["time_to_first_token_seconds"] > 0
    assert set(record["domains"]) == {collector.domains[place].name}
