"""The processes that pass traffic on: what becomes of requests when one stops or dies."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from killing import daemon as running_daemon
from killing import settle, simulator, stored
from waiting import PATIENCE_SECONDS, until

from melodi.clock import SystemClock
from melodi.daemon.serve import Served, served
from melodi.daemon.traffic_process import TrafficProcess
from melodi.energy.record import Status
from melodi.errors import BackendError, ConfigError
from melodi.serving import bind

BODY = {"model": "simulated", "prompt": "Tell.", "stream": True, "ignore_eos": True}
STREAMS = 30

one_kind = pytest.mark.parametrize("stage", ["vllm"], indirect=True)


def passers(daemon: int) -> Sequence[psutil.Process]:
    """The processes that pass traffic on for this daemon."""
    children = psutil.Process(daemon).children()
    return [one for one in children if "melodi.gateway.child" in one.cmdline()]


def has_clients(process: psutil.Process, url: str) -> bool:
    """Whether the process has accepted connections to this address."""
    port = int(url.rpartition(":")[2])
    connections = process.net_connections("tcp")
    return any(one.status == "ESTABLISHED" and one.laddr.port == port for one in connections)


async def stream(session: aiohttp.ClientSession, url: str, *, tokens: int) -> tuple[str, bytes]:
    """One answer, and the id of its record."""
    body = BODY | {"max_tokens": tokens, "min_tokens": tokens}
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        assert answer.status == 200
        return answer.headers["X-Melodi-Request-Id"], await answer.read()


@one_kind
async def test_when_all_die_their_requests_have_ended_and_the_next_client_is_served(
    daemon: Served,
) -> None:
    """A stream is cut and recorded so; readiness says why until there are others."""
    runtime, url = daemon.runtime, daemon.gateway_urls["sim"]
    async with aiohttp.ClientSession() as session:
        body = BODY | {"max_tokens": 2_000, "min_tokens": 2_000}
        async with session.post(f"{url}/v1/completions", json=body) as answer:
            assert answer.status == 200
            name = answer.headers["X-Melodi-Request-Id"]
            await answer.content.readany()
            first = passers(os.getpid())
            await until(lambda: runtime.books.in_flight)
            for one in first:
                one.kill()
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        await until(lambda: any("has ended (exit code -9)" in one for one in runtime.faults()))
        record = await runtime.final(name, PATIENCE_SECONDS)
        assert record.status is Status.ERROR
        assert "MELODI's process" in (record.error or "")
        assert record.duration_seconds is not None
        name, text = await stream(session, url, tokens=3)
        assert text.endswith(b"[DONE]\n\n")
    assert (await runtime.final(name, PATIENCE_SECONDS)).status is Status.OK
    await until(lambda: not runtime.faults())
    second = passers(os.getpid())
    assert len(second) == len(first) == runtime.settings.gateway.processes
    assert {one.pid for one in second}.isdisjoint(one.pid for one in first)


@one_kind
async def test_when_one_dies_the_streams_of_the_others_go_on(daemon: Served) -> None:
    """Some of many streams are cut, the others whole, and each has the record that it deserves."""
    runtime, url = daemon.runtime, daemon.gateway_urls["sim"]
    async with aiohttp.ClientSession() as session:
        passing: list[asyncio.Task[tuple[str, bytes]]] = []

        async def everybody_is_busy() -> bool:
            passing.append(asyncio.create_task(stream(session, url, tokens=300)))
            await until(lambda: runtime.books.in_flight == len(passing))
            return all(has_clients(one, url) for one in passers(os.getpid()))

        while not await everybody_is_busy():
            assert len(passing) < 100
        passers(os.getpid())[0].kill()
        await until(runtime.faults)
        name, text = await stream(session, url, tokens=3)
        assert text.endswith(b"[DONE]\n\n")
        ended = await asyncio.gather(*passing, return_exceptions=True)
    whole = {one[0] for one in ended if not isinstance(one, BaseException)}
    cut = [one for one in ended if isinstance(one, aiohttp.ClientError)]
    assert whole
    assert cut
    assert len(whole) + len(cut) == len(passing)
    await until(lambda: runtime.books.in_flight == 0)
    for one in whole | {name}:
        assert (await runtime.final(one, PATIENCE_SECONDS)).status is Status.OK


@one_kind
async def test_what_it_uses_is_melodis_own(daemon: Served) -> None:
    """Its CPU time is in MELODI's, and stays there when another process takes its place."""
    runtime, here = daemon.runtime, time.process_time()
    async with aiohttp.ClientSession() as session:
        await stream(session, daemon.gateway_urls["sim"], tokens=3)
        await until(lambda: runtime.traffic.used.cpu_seconds > 0)
        before = runtime.traffic.used.cpu_seconds
        passers(os.getpid())[0].kill()
        await until(runtime.faults)
        await stream(session, daemon.gateway_urls["sim"], tokens=3)
        await until(lambda: runtime.traffic.used.cpu_seconds > before)
    told = runtime.registry.get_sample_value("melodi_self_cpu_seconds_total")
    assert told is not None
    assert told > here + before


@one_kind
async def test_a_stop_while_another_one_is_started_ends_that_one(
    daemon: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as soon as it is there: the daemon's end waits for it."""
    begun, is_starting, goes_on = TrafficProcess.begun, asyncio.Event(), asyncio.Event()

    async def slowly(*said: Any) -> TrafficProcess:
        is_starting.set()
        await goes_on.wait()
        return await begun(*said)

    monkeypatch.setattr(TrafficProcess, "begun", slowly)
    passers(os.getpid())[0].kill()
    await is_starting.wait()
    daemon.runtime.traffic.ask_to_stop()
    goes_on.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await daemon.runtime.traffic.close()
    assert passers(os.getpid()) == []


async def test_a_daemon_that_stands_still_holds_up_no_stream(tmp_path: Path) -> None:
    """Stopped by a signal while streams begin, run and end; awake again it records them all."""
    with simulator() as backend:
        shell = settle(tmp_path, backend)
        with running_daemon(shell) as (process, (_, gateway)):
            async with aiohttp.ClientSession() as session:
                os.kill(process.pid, signal.SIGSTOP)
                try:
                    passing = [stream(session, gateway, tokens=20) for _ in range(STREAMS)]
                    answers = await asyncio.gather(*passing)
                finally:
                    os.kill(process.pid, signal.SIGCONT)
            assert all(text.endswith(b"[DONE]\n\n") for _, text in answers)
            process.terminate()
            assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0
        records = {one.id: one for one in stored(tmp_path)}
        assert records.keys() == {name for name, _ in answers}
        assert all(one.status is Status.OK for one in records.values())
        assert all(one.output_tokens == 20 for one in records.values())


async def test_it_ends_with_its_daemon_and_not_before(tmp_path: Path) -> None:
    """Signals for the whole group of a terminal or a service are left to the daemon."""
    with simulator() as backend, running_daemon(settle(tmp_path, backend)) as (process, _):
        passing = passers(process.pid)
        for one in passing:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                one.send_signal(number)
            with pytest.raises(psutil.TimeoutExpired):
                one.wait(0.2)
        process.kill()
        for one in passing:
            one.wait(PATIENCE_SECONDS)


async def test_a_killed_daemon_leaves_its_address_at_once_and_its_streams_their_grace(
    tmp_path: Path,
) -> None:
    """So that the next daemon may begin while the last answers of this one still pass."""
    with simulator() as backend, running_daemon(settle(tmp_path, backend)) as (process, urls):
        address = urls[1].removeprefix("http://")
        passing = passers(process.pid)
        body = BODY | {"max_tokens": 100, "min_tokens": 100}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{urls[1]}/v1/completions", json=body) as answer,
        ):
            await answer.content.readany()
            process.kill()
            await until(lambda: is_free(address))
            assert any(one.is_running() for one in passing)
            assert (await answer.read()).endswith(b"[DONE]\n\n")
        for one in passing:
            one.wait(PATIENCE_SECONDS)


def is_free(address: str) -> bool:
    """Whether a daemon can listen there."""
    try:
        bind(address).close()
    except ConfigError:
        return False
    return True


@one_kind
async def test_a_process_that_cannot_be_started_is_said(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon does not begin without it."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BackendError, match="passes traffic on has ended at once"):
        async with served(stage.settings, clock=SystemClock(), probes=stage.probes()):
            pass
