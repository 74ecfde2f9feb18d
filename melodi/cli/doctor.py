"""`melodi doctor`: which meters and backends are here, and how to mend what is not."""

import asyncio
from typing import Any

import typer

from melodi.cli.meter_lines import MARKS, meter_lines, summary_lines
from melodi.cli.options import Config, Json
from melodi.cli.output import print_json


def doctor(*, config: Config = None, as_json: Json = False) -> None:
    """Try every meter and backend. Ends with 1 where nothing can be measured."""
    from melodi.clock import SystemClock
    from melodi.config import load
    from melodi.daemon.doctor import examine

    found = asyncio.run(examine(load(config), clock=SystemClock()))
    if as_json:
        print_json(found)
    else:
        for line in _report(found):
            print(line)  # noqa: T201
    if not found["measurable"]:
        raise typer.Exit(1)


def _report(found: dict[str, Any]) -> list[str]:
    lines = ["Meters"]
    for meter in found["collectors"]:
        lines += meter_lines(meter)
    lines.append("Backends")
    for backend in found["backends"]:
        lines += _backend_lines(backend)
    if not found["backends"]:
        lines.append("  none is configured; add a [[backends]] table to melodi.toml")
    lines += ["", *summary_lines(found["collectors"])]
    return lines


def _backend_lines(backend: dict[str, Any]) -> list[str]:
    mark = MARKS["ok"] if backend["reachable"] and not backend["error"] else MARKS["failing"]
    version = f" {backend['version']}" if backend["version"] else ""
    lines = [f"  {mark}  {backend['name']}: {backend['kind']}{version} at {backend['url']}"]
    if backend["models"]:
        names = ", ".join(model["name"] for model in backend["models"])
        lines.append(f"             models: {names}")
    if backend["domains"]:
        lines.append(f"             charged to: {', '.join(backend['domains'])}")
    if backend["error"]:
        lines.append(f"             {backend['error']}")
    return lines
