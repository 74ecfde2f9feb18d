"""What `melodi serve` says once it answers."""

from types import SimpleNamespace
from typing import Any

from melodi.cli.serve import greeting
from melodi.config import Api, BackendSettings, Settings


def daemon(settings: Settings) -> Any:
    """As much of a daemon as greets."""
    sampler = SimpleNamespace(domains=())
    runtime = SimpleNamespace(settings=settings, sampler=sampler, faults=list)
    return SimpleNamespace(runtime=runtime, api_url="http://host:8340", gateway_urls={})


def test_what_others_can_reach_is_said_and_what_they_cannot_is_not() -> None:
    """An API or a gateway that is open to the network asks nobody for a key."""
    backends = [
        BackendSettings(name=name, kind="vllm", url="http://h", listen=listen, expose=True)
        for name, listen in (("open", "0.0.0.0:1"), ("own", "127.0.0.1:1"))
    ]
    api = Api(listen="0.0.0.0:8340", expose=True)
    said = greeting(daemon(Settings(host="h", api=api, backends=backends)))
    assert [line for line in said if line.startswith("warning")] == [
        "warning    the API: 0.0.0.0:8340 is open to other machines",
        "warning    backend open: 0.0.0.0:1 is open to other machines",
    ]
    said = greeting(daemon(Settings(host="h", backends=backends[1:])))
    assert not [line for line in said if line.startswith("warning")]
