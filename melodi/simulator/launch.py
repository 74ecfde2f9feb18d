"""Runs a simulated server: in a thread for a demo or a test, or alone until Ctrl-C."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from melodi.clock import Clock, SystemClock
from melodi.serving import bind, url_of
from melodi.simulator.core import Core
from melodi.simulator.sensor import PowerSensor
from melodi.simulator.server import ServerKind, create_simulator
from melodi.simulator.settings import SimulatorSettings

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """A simulated server that answers at `url`."""

    url: str
    core: Core
    sensor: PowerSensor


def default_settings(kind: ServerKind) -> SimulatorSettings:
    """As the real servers start: Ollama with one slot, vLLM with many."""
    return SimulatorSettings(max_running=1 if kind == "ollama" else 64)


@contextmanager
def simulator_in_thread(
    kind: ServerKind,
    *,
    port: int = 0,
    settings: SimulatorSettings | None = None,
    clock: Clock | None = None,
) -> Iterator[RunningSimulator]:
    """A server on 127.0.0.1 while the context lasts; `port` 0 takes any that is free."""
    server, running, listener = _prepare(kind, port, settings, clock)
    thread = threading.Thread(
        target=server.run, args=([listener],), name="melodi-simulator", daemon=True
    )
    thread.start()
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def run_simulator(
    kind: ServerKind,
    *,
    port: int,
    on_bound: Callable[[str], None],
    settings: SimulatorSettings | None = None,
) -> None:
    """Serve on 127.0.0.1 until interrupted; `on_bound` is told the URL first.

    Raises ConfigError where the port cannot be had.
    """
    server, running, listener = _prepare(kind, port, settings, None)
    with listener:
        on_bound(running.url)
        server.run([listener])


def _prepare(
    kind: ServerKind, port: int, settings: SimulatorSettings | None, clock: Clock | None
) -> tuple[uvicorn.Server, RunningSimulator, socket.socket]:
    settings = settings or default_settings(kind)
    clock = clock or SystemClock()
    at_start = (settings.models[0], settings.context_tokens) if kind == "vllm" else None
    core = Core(settings, origin_ns=clock.monotonic_ns(), loaded=at_start)
    sensor = PowerSensor(core)
    app = create_simulator(kind, core=core, sensor=sensor, clock=clock)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=kind == "vllm",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    listener = bind(f"{HOST}:{port}")
    return uvicorn.Server(config), RunningSimulator(url_of(listener), core, sensor), listener
