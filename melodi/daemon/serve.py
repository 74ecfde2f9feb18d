"""The daemon's life: a runtime with its API and gateways on sockets, until a signal."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from collectors.registry import Probe
from melodi.api.app import create_api
from melodi.clock import Clock
from melodi.config import Settings, load
from melodi.daemon.running import books_lock, running
from melodi.daemon.runtime import Runtime
from melodi.daemon.traffic_process import Front
from melodi.errors import ConfigError, MelodiError
from melodi.serving import bind, serving, spare_what_stays, url_of

Place = tuple[str, str]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """A daemon that answers."""

    runtime: Runtime
    api_url: str
    gateway_urls: dict[str, str]
    """By backend name, of those that listen."""


class Listeners:
    """Listening sockets; they outlive a reload, so that clients wait instead of fail.

    Each has a user ("api", or "gateway" and the backend's name) and an address `host:port`.
    """

    def __init__(self) -> None:
        self._sockets: dict[Place, socket.socket] = {}

    def __enter__(self) -> "Listeners":
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(())

    def on(self, place: Place) -> socket.socket:
        """The socket there; raises ConfigError where the address cannot be had."""
        if place not in self._sockets:
            self._sockets[place] = bind(place[1])
        return self._sockets[place]

    def keep(self, places: Iterable[Place]) -> None:
        """Close all others."""
        for place in self._sockets.keys() - set(places):
            self._sockets.pop(place).close()


async def serve(config: Path | None, *, clock: Clock, on_ready: Callable[[Served], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; SIGHUP reads the settings again and starts anew with them."""
    settings: Settings | None = load(config)
    with Listeners() as listeners:
        while settings is not None:
            async with served(settings, clock=clock, listeners=listeners) as daemon:
                spare_what_stays()
                # Whoever is told that it is ready may stop it at once.
                with _signals(signal.SIGHUP, signal.SIGINT, signal.SIGTERM) as arrived:
                    on_ready(daemon)
                    settings = await _next_settings(config, arrived)
                if settings is None:
                    # Who comes now is refused at once: in the queue it would wait for nobody.
                    listeners.keep(())


@contextlib.asynccontextmanager
async def served(
    settings: Settings,
    *,
    clock: Clock,
    listeners: Listeners | None = None,
    probes: Sequence[Probe] | None = None,
) -> AsyncIterator[Served]:
    """API and gateways answer while the context lasts.

    Start: sockets (so that a taken port is known before anything is opened), lock, database,
    meters, sampler, books, gateways and API. Stop: the same in reverse, so that streams end
    first, their energy is settled next, and the database closes last.
    """
    wanted = {
        one.name: (f"gateway {one.name}", one.listen)
        for one in settings.backends
        if one.listen is not None
    }
    api_place = ("api", settings.api.listen)
    async with contextlib.AsyncExitStack() as stack:
        listeners = listeners or stack.enter_context(Listeners())
        listeners.keep([api_place, *wanted.values()])
        try:
            gateways = {name: listeners.on(place) for name, place in wanted.items()}
            api_listener = listeners.on(api_place)
        except ConfigError:
            # If another melodi holds the port, that it keeps these books says more.
            with books_lock(settings, None):
                raise
        api_url = url_of(api_listener)
        runtime = await stack.enter_async_context(
            running(settings, clock=clock, probes=probes, api_url=api_url)
        )
        if gateways:
            fronts = [Front(runtime.backend(name), one) for name, one in gateways.items()]
            stack.push_async_callback(runtime.traffic.close)
            await runtime.traffic.start(fronts)
        host = settings.api.listen.rpartition(":")[0].strip("[]")
        api = create_api(runtime, names=(host,))
        await stack.enter_async_context(serving([(api, api_listener)]))
        # Both take no new work at once, and their streams share one grace time.
        stack.callback(runtime.traffic.ask_to_stop)
        # Live streams have no end of their own: they end before the server waits for its clients.
        stack.callback(runtime.power.close)
        yield Served(runtime, api_url, {name: url_of(one) for name, one in gateways.items()})


async def _next_settings(
    config: Path | None, arrived: "asyncio.Queue[signal.Signals]"
) -> Settings | None:
    """Wait for a signal: the settings to go on with, None to stop.

    Settings that cannot be used are said, and the daemon goes on with those it has.
    """
    while await arrived.get() is signal.SIGHUP:
        try:
            return load(config)
        except MelodiError as error:
            log.warning("not_reloaded", reason=str(error))
    return None


async def until_signal() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    with _signals(signal.SIGINT, signal.SIGTERM) as arrived:
        await arrived.get()


@contextlib.contextmanager
def _signals(*numbers: signal.Signals) -> Iterator["asyncio.Queue[signal.Signals]"]:
    """The signals that come while the context lasts; afterwards they do what they always did."""
    arrived: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, arrived.put_nowait, number)
    try:
        yield arrived
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
