"""A daemon before a backend behind TLS and below a path."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tls_server import TlsServer, tls_server

from melodi.clock import SystemClock
from melodi.config import Api, BackendSettings, Database, Settings
from melodi.daemon.serve import Served, served
from melodi.errors import ConfigError

CLOCK = SystemClock()
ANY_PORT = "127.0.0.1:0"


@asynccontextmanager
async def daemon(folder: Path, url: str, ca: Path | None) -> AsyncIterator[Served]:
    backend = BackendSettings(name="far", kind="vllm", url=url, ca=ca, listen=ANY_PORT)
    settings = Settings(
        host="test",
        api=Api(listen=ANY_PORT),
        database=Database(url=f"sqlite:///{folder / 'melodi.db'}"),
        backends=[backend],
    )
    async with served(settings, clock=CLOCK, probes=[]) as one:
        yield one


@pytest.fixture
def server(tmp_path: Path) -> TlsServer:
    with tls_server("vllm", tmp_path) as one:
        yield one


async def test_gateway_and_api_reach_it_by_its_authority(tmp_path: Path, server: TlsServer) -> None:
    """What a client sends below `/v1` arrives below the prefix; dispatching works too."""
    asked = {"model": "simulated", "prompt": "hi", "max_tokens": 3}
    async with daemon(tmp_path, server.url, server.ca) as one, aiohttp.ClientSession() as client:
        async with client.post(f"{one.gateway_urls['far']}/v1/completions", json=asked) as answer:
            assert answer.status == 200
            assert (await answer.json())["usage"]["completion_tokens"] == 3
        body = {"backend": "far", "model": "simulated", "prompt": "hi"}
        body |= {"options": {"max_tokens": 3}}
        async with client.post(f"{one.api_url}/v1/requests", json=body) as answer:
            record = await answer.json()
    assert (record["status"], record["output_tokens"]) == ("ok", 3)


async def test_one_that_cannot_prove_itself_gets_a_502_that_says_what_to_do(
    tmp_path: Path, server: TlsServer
) -> None:
    """For a client of the gateway as for the doctor; nothing was sent to it."""
    async with daemon(tmp_path, server.url, None) as one, aiohttp.ClientSession() as client:
        url = one.gateway_urls["far"]
        async with client.post(f"{url}/v1/completions", json={"prompt": "x"}) as answer:
            assert answer.status == 502
            message = (await answer.json())["error"]["message"]
        (view,) = await one.runtime.backends()
    assert message.startswith(f"backend far at {server.url} cannot be trusted (")
    assert message.endswith("as ca in its table")
    assert view["error"] == message


async def test_an_authority_that_is_away_is_said_at_the_start(tmp_path: Path) -> None:
    """Not with the first request."""
    with pytest.raises(ConfigError, match="mend the path"):
        async with daemon(tmp_path, "https://localhost", tmp_path / "away.pem"):
            pass
