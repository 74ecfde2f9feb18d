"""The daemon: a runtime with its API and gateways on sockets, until a signal."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from collectors.registry import Probe
from melodi.api.app import create_api
from melodi.clock import Clock
from melodi.config import Settings
from melodi.daemon.runtime import Runtime, running
from melodi.gateway.app import create_gateway
from melodi.serving import bind, serving, url_of


@dataclass(frozen=True, slots=True)
class Served:
    """A daemon that answers."""

    runtime: Runtime
    api_url: str
    gateway_urls: dict[str, str]
    """By backend name, of those that listen."""


@contextlib.asynccontextmanager
async def served(
    settings: Settings, *, clock: Clock, probes: Sequence[Probe] | None = None
) -> AsyncIterator[Served]:
    """API and gateways answer while the context lasts.

    Start: sockets (so that a taken port is known before anything is opened), database, meters,
    sampler, books, gateways, API. Stop: the same in reverse, so that streams end first, their
    energy is settled next, and the database closes last.
    """
    async with contextlib.AsyncExitStack() as stack:
        listeners = {
            one.name: stack.enter_context(bind(one.listen))
            for one in settings.backends
            if one.listen is not None
        }
        api_listener = stack.enter_context(bind(settings.api.listen))
        runtime = await stack.enter_async_context(running(settings, clock=clock, probes=probes))
        for name, listener in listeners.items():
            gateway = create_gateway(runtime.backend(name), runtime.books, clock)
            await stack.enter_async_context(serving(gateway, listener))
        host = settings.api.listen.rpartition(":")[0].strip("[]")
        api = create_api(runtime, names=(host,))
        await stack.enter_async_context(serving(api, api_listener))
        urls = {name: url_of(listener) for name, listener in listeners.items()}
        yield Served(runtime, url_of(api_listener), urls)


async def until_signal() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        await stopped.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
