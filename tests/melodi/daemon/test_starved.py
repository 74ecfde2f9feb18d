"""A daemon without a disk to write to, or without anybody who reads what it says."""

import asyncio
import gzip
import re
import resource
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from command import Shell, urls_said
from killing import daemon, settle, simulator, stored
from scripted_server import response, scripted
from waiting import PATIENCE_SECONDS

STREAMS = 100
UNREADABLE = 5_000
CREATED = re.compile(rb'"created":\d+')


async def stream(session: aiohttp.ClientSession, url: str, number: int) -> bytes:
    """One answer, without the second in which it was made."""
    body: dict[str, Any] = {"model": "simulated", "prompt": f"Tell {number}.", "max_tokens": 30}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = {"X-Request-Id": f"r{number}"}
    async with session.post(f"{url}/v1/completions", json=body, headers=headers) as answer:
        assert answer.status == 200
        return CREATED.sub(b"", await answer.read())


async def readiness(
    session: aiohttp.ClientSession, url: str, status: int, *, saying: str = ""
) -> None:
    """Wait until readiness has this status, and says so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with session.get(f"{url}/readyz") as answer:
                if answer.status == status and saying in await answer.text():
                    return
            await asyncio.sleep(0.05)


async def settled(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    """The records, once all of them are final."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with session.get(f"{url}/v1/requests?limit=1000") as answer:
                items = (await answer.json())["items"]
            if len(items) == STREAMS and not any(one["provisional"] for one in items):
                return items
            await asyncio.sleep(0.1)


async def test_a_full_disk_costs_no_stream_and_in_the_end_no_record(tmp_path: Path) -> None:
    """No file may grow while a hundred streams pass: they pass whole, readiness and log name the
    fault, and once there is room again every record is written."""
    with simulator() as backend:
        shell = settle(tmp_path, backend)
        connector = aiohttp.TCPConnector(limit=0)
        with daemon(shell) as (process, (api, gateway)):
            async with aiohttp.ClientSession(connector=connector) as session:
                await readiness(session, api, 200)
                direct = await all_streams(session, backend)
                _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, most))
                assert await all_streams(session, gateway) == direct
                await readiness(session, api, 503, saying="begin lines cannot be written")
                await readiness(session, api, 503, saying="the database cannot be written")
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
                await readiness(session, api, 200)
                assert all(one["status"] == "ok" for one in await settled(session, api))
            process.terminate()
            assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0
    assert len(stored(tmp_path)) == STREAMS
    log = (tmp_path / "serve.log").read_text()
    assert "store_failing" in log
    assert "spool_failing" in log


async def all_streams(session: aiohttp.ClientSession, url: str) -> list[bytes]:
    return await asyncio.gather(*(stream(session, url, number) for number in range(STREAMS)))


@pytest.mark.timeout(180)
async def test_a_daemon_whose_words_nobody_takes_goes_on(tmp_path: Path) -> None:
    """More warnings than pipe and queue can hold: every answer comes, lost lines are counted, and
    it stops when it is told to."""
    torn = gzip.compress(b'{"choices":[]}')[:-9] + b"\xff" * 9
    answer = response(torn, extra=b"Content-Encoding: gzip\r\n")
    async with scripted([answer]) as backend:
        settle(tmp_path, backend.url)
        toml = (tmp_path / "melodi.toml").read_text()
        # No meter: what answers here is no simulator.
        plain = re.sub(r"\[collectors\]\n.*\n", '[collectors]\nuse = ["estimate"]\n', toml)
        (tmp_path / "melodi.toml").write_text(plain)
        with Shell(tmp_path).start("serve") as process:
            try:
                api, gateway = await asyncio.to_thread(urls_said, process, "api", "gateway")
                connector = aiohttp.TCPConnector(limit=16)
                async with aiohttp.ClientSession(
                    connector=connector, auto_decompress=False
                ) as session:

                    async def one(number: int) -> bytes:
                        body = {"model": "m", "prompt": f"{number}"}
                        async with session.post(f"{gateway}/v1/completions", json=body) as found:
                            assert found.status == 200
                            return await found.read()

                    bodies = await asyncio.gather(*(one(number) for number in range(UNREADABLE)))
                    async with session.get(f"{api}/metrics") as metrics:
                        lost = re.search(
                            r"^melodi_log_lines_lost_total (\d+)", await metrics.text(), re.M
                        )
                assert set(bodies) == {torn}
                assert lost is not None
                assert int(lost[1]) > 0
                process.terminate()
                assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0
            finally:
                process.kill()
