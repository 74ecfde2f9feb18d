"""`melodi top`: what a running daemon measures, live in the terminal."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melodi.cli.options import Config, Json
from melodi.cli.output import RECORD_COLUMNS, number, print_json, table
from melodi.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx
    from rich.console import RenderableType

    from melodi.config import Settings
    from melodi.energy.record import EnergyRecord

RECORDS = 8
RECORDS_EVERY_SECONDS = 1.0
ANSWER_SECONDS = 10.0


def top(
    *,
    url: Annotated[str | None, typer.Option(help="The daemon; default: where it listens.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show this moment and end.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Power by domain, requests in flight, and joules as they come, until Ctrl-C."""
    from rich.console import Console

    from melodi.config import load

    if as_json and not once:
        raise typer.BadParameter("it shows one moment only; add --once", param_hint="--json")
    with _daemon(url or _url_of(load(config))) as daemon:
        events = _events(daemon)
        if once:
            now, records = next(events), _records(daemon)
            if as_json:
                print_json(now | {"requests": records})
            else:
                Console(highlight=False, markup=False).print(_screen(now, _parsed(records)))
            return
        _watch(daemon, events)


def _watch(daemon: "httpx.Client", events: Iterator[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    asked_at, records = -RECORDS_EVERY_SECONDS, list["EnergyRecord"]()
    try:
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            for now in events:
                if time.monotonic() - asked_at >= RECORDS_EVERY_SECONDS:
                    asked_at, records = time.monotonic(), _parsed(_records(daemon))
                live.update(_screen(now, records), refresh=True)
    except KeyboardInterrupt:
        return
    raise BackendError("the daemon has stopped; start it again with: melodi serve")


def _url_of(settings: "Settings") -> str:
    host, _, port = settings.api.listen.rpartition(":")
    everywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}
    return f"http://{everywhere.get(host, host)}:{port}"


@contextmanager
def _daemon(url: str) -> "Iterator[httpx.Client]":
    """A client of the daemon; BackendError where none answers there."""
    import httpx

    try:
        with httpx.Client(base_url=url, timeout=ANSWER_SECONDS, trust_env=False) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise BackendError(
            f"no daemon answers at {url} ({error}); start one with: melodi serve, "
            "or give its address with --url"
        ) from None


def _events(daemon: "httpx.Client") -> Iterator[dict[str, Any]]:
    """The events of /v1/power/live."""
    with daemon.stream("GET", "/v1/power/live") as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line.removeprefix("data:"))


def _records(daemon: "httpx.Client") -> list[dict[str, Any]]:
    answer = daemon.get("/v1/requests", params={"limit": RECORDS}).raise_for_status()
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def _parsed(records: list[dict[str, Any]]) -> "list[EnergyRecord]":
    from pydantic import TypeAdapter

    from melodi.energy.record import EnergyRecord

    return TypeAdapter(list[EnergyRecord]).validate_python(records)


def _screen(now: dict[str, Any], records: "Sequence[EnergyRecord]") -> "RenderableType":
    from rich.console import Group

    power = table(
        ["domain", ">watts", ">joules since start"],
        (
            [name, number(one["mean_watts"], 4), number(one["joules"], 6)]
            for name, one in now["domains"].items()
        ),
    )
    head = f"{now['in_flight']} requests in flight, {number(now['joules'], 6)} J since the start"
    rows = ([show(one) for show in RECORD_COLUMNS.values()] for one in records)
    return Group(head, power, table(list(RECORD_COLUMNS), rows))
