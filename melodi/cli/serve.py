"""`melodi serve`: the daemon."""

from typing import TYPE_CHECKING

from melodi.cli.options import Config
from melodi.cli.output import say

if TYPE_CHECKING:
    from melodi.daemon.serve import Served


def serve(*, config: Config = None) -> None:
    """Measure, pass prompts on, record and answer, until Ctrl-C or SIGTERM."""
    from melodi.clock import SystemClock
    from melodi.daemon.serve import serve as serve_until_stopped
    from melodi.logs import configure_logging
    from melodi.serving import run

    configure_logging()
    run(serve_until_stopped(config, clock=SystemClock(), on_ready=_greet))
    say("stopped: streams have ended, energy is settled, the database is closed")


def _greet(daemon: "Served") -> None:
    for line in greeting(daemon):
        say(line)


def greeting(daemon: "Served") -> list[str]:
    """What the daemon says of itself once it answers, a line each."""
    from melodi.config import is_loopback

    runtime = daemon.runtime
    lines = [f"api        {daemon.api_url}  (try {daemon.api_url}/docs)"]
    for name, url in daemon.gateway_urls.items():
        lines.append(f"gateway    {url}  ->  {runtime.backend(name).url}  ({name})")
    api = runtime.settings.api
    if not is_loopback(api.listen):
        lines.append(f"warning    the API: {api.listen} is open to other machines")
    for one in runtime.settings.backends:
        if one.listen is not None and not is_loopback(one.listen):
            lines.append(f"warning    backend {one.name}: {one.listen} is open to other machines")
    for domain in runtime.sampler.domains:
        note = "  (an estimate, not a measurement)" if domain.estimated else ""
        lines.append(f"measures   {domain.name} by {domain.source}{note}")
    lines += [f"not ready  {fault}" for fault in runtime.faults()]
    return lines
