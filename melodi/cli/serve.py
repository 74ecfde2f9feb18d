"""`melodi serve`: the daemon."""

from typing import TYPE_CHECKING

from melodi.cli.options import Config
from melodi.cli.output import say

if TYPE_CHECKING:
    from melodi.config import Settings
    from melodi.daemon.serve import Served


def serve(*, config: Config = None) -> None:
    """Measure, pass prompts on, record and answer, until Ctrl-C or SIGTERM."""
    import asyncio

    from melodi.config import load
    from melodi.logs import configure_logging

    configure_logging()
    asyncio.run(_serve(load(config)))


async def _serve(settings: "Settings") -> None:
    from melodi.clock import SystemClock
    from melodi.daemon.serve import served, until_signal

    async with served(settings, clock=SystemClock()) as daemon:
        for line in _greeting(daemon):
            say(line)
        await until_signal()
        say("stopping: streams end, energy is settled, the database is closed")


def _greeting(daemon: "Served") -> list[str]:
    runtime = daemon.runtime
    lines = [f"api        {daemon.api_url}  (try {daemon.api_url}/docs)"]
    for name, url in daemon.gateway_urls.items():
        lines.append(f"gateway    {url}  ->  {runtime.backend(name).url}  ({name})")
    for one in runtime.settings.backends:
        if one.expose:
            lines.append(f"warning    backend {one.name}: {one.listen} is open to other machines")
    for domain in runtime.sampler.domains:
        note = "  (an estimate, not a measurement)" if domain.estimated else ""
        lines.append(f"measures   {domain.name} by {domain.source}{note}")
    lines += [f"not ready  {fault}" for fault in runtime.faults()]
    return lines
