"""Backends behind TLS are believed only if they prove who they are."""

from pathlib import Path

import pytest
from scripted_server import MemoryRecorder
from tls_server import TlsServer, tls_server

from melodi.clock import SystemClock
from melodi.energy.record import Status
from melodi.errors import ConfigError
from melodi.inference.describe import describe
from melodi.inference.dispatch import Dispatcher
from melodi.inference.request import Backend, BackendKind, PromptRequest
from melodi.inference.timeline import RequestTimeline
from melodi.inference.tls import trust
from melodi.simulator.launch import simulator_in_thread

KINDS = list(BackendKind)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> BackendKind:
    return request.param


@pytest.fixture
def server(kind: BackendKind, tmp_path: Path) -> "TlsServer":
    flavour = "ollama" if kind is BackendKind.OLLAMA else "vllm"
    with tls_server(flavour, tmp_path) as one:
        yield one


async def sent(backend: Backend) -> RequestTimeline:
    """What became of a prompt."""
    prompt = PromptRequest(
        backend=backend, model="simulated", prompt="hi", options={"max_tokens": 3}
    )
    async with Dispatcher(MemoryRecorder(), SystemClock()) as dispatcher:
        return await dispatcher.dispatch(prompt)


async def test_a_server_below_a_path_is_reached_by_its_authority(
    kind: BackendKind, server: TlsServer
) -> None:
    """It tells its models, and prompts are answered."""
    backend = Backend(name="b", kind=kind, url=server.url, ca=server.ca)
    view = await describe(backend)
    assert (view.error, [model.name for model in view.models]) == (None, ["simulated"])
    timeline = await sent(backend)
    assert (timeline.error, timeline.status, timeline.output_tokens) == (None, Status.OK, 3)


@pytest.mark.parametrize("other", [False, True], ids=["none", "another"])
async def test_a_server_without_its_authority_is_not_believed(
    kind: BackendKind, server: TlsServer, other: bool
) -> None:
    """Neither by what this machine trusts nor by another authority; the remedy is told."""
    ca = server.other_ca if other else None
    backend = Backend(name="b", kind=kind, url=server.url, ca=ca)
    timeline = await sent(backend)
    for error in (timeline.error, (await describe(backend)).error):
        assert error is not None
        assert error.startswith(f"backend b at {server.url} cannot be trusted (")
        assert "certificate" in error
        assert error.endswith("the certificates that vouch for it as ca in its table")
    assert (timeline.status, timeline.reached) == (Status.ERROR, False)


async def test_a_server_of_another_name_is_not_believed(
    kind: BackendKind, server: TlsServer
) -> None:
    """Its certificate is for `localhost`."""
    url = server.url.replace("localhost", "127.0.0.1")
    timeline = await sent(Backend(name="b", kind=kind, url=url, ca=server.ca))
    assert "mismatch" in (timeline.error or "")
    assert (timeline.error or "").endswith("put a name that its certificate holds into its url")


async def test_a_server_without_tls_is_told_from_one_that_is_away(kind: BackendKind) -> None:
    """The url promises what the server does not speak."""
    with simulator_in_thread("vllm") as plain:
        url = plain.url.replace("http://", "https://")
        view = await describe(Backend(name="b", kind=kind, url=url))
    assert view.error is not None
    assert "check that it speaks TLS, or write its url with http://" in view.error


def test_an_authority_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file that is away or no PEM, and one beside a url that has no use for it."""
    (tmp_path / "no.pem").write_text("hello")
    for name, reason in (("away.pem", "No such file"), ("no.pem", "write them in PEM")):
        backend = Backend(
            name="b", kind=BackendKind.VLLM, url="https://localhost", ca=tmp_path / name
        )
        with pytest.raises(ConfigError, match=f"backend b: its ca .*{name} .*{reason}"):
            trust(backend)
    with pytest.raises(ConfigError, match="its ca is for https"):
        Backend(name="b", kind=BackendKind.VLLM, url="http://localhost", ca=tmp_path)
