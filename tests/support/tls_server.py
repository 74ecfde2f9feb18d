"""A simulated server behind TLS and below a path, with an authority made for the test."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from scripted_server import served
from starlette.applications import Starlette
from starlette.routing import Mount

from melodi.clock import SystemClock
from melodi.simulator.core import Core
from melodi.simulator.sensor import PowerSensor
from melodi.simulator.server import ServerKind, create_simulator
from melodi.simulator.settings import SimulatorSettings

PREFIX = "/a/prefix"


@dataclass(frozen=True)
class TlsServer:
    """Answers below `url`; `ca` vouches for it, and `other_ca` does not."""

    url: str
    ca: Path
    other_ca: Path


@contextmanager
def tls_server(kind: ServerKind, folder: Path) -> Iterator[TlsServer]:
    """The server, with its authorities' files in `folder`."""
    settings = SimulatorSettings(load_seconds=0.0)
    clock = SystemClock()
    core = Core(settings, origin_ns=clock.monotonic_ns())
    app = create_simulator(kind, core=core, sensor=PowerSensor(core), clock=clock)
    authority, other = trustme.CA(), trustme.CA()
    paths = folder / "ca.pem", folder / "other.pem", folder / "own.pem"
    authority.cert_pem.write_to_path(paths[0])
    other.cert_pem.write_to_path(paths[1])
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(paths[2])
    below = Starlette(routes=[Mount(PREFIX, app)])
    with served(below, ssl_certfile=str(paths[2])) as url:
        port = url.rpartition(":")[2]
        yield TlsServer(f"https://localhost:{port}{PREFIX}", *paths[:2])
