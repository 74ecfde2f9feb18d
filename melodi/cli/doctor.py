"""`melodi doctor`: which meters and backends are here, and how to mend what is not."""

import asyncio
from typing import Any

import typer

from melodi.cli.meter_lines import MARKS, meter_lines, summary_lines
from melodi.cli.options import Config, Json
from melodi.cli.output import print_json

HOW_DOMAINS = {
    "settings": "as set",
    "processes": "where its processes are",
    "all": "all there is",
    "assumed": "all there is, because its GPUs are not known",
}


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
    lines += [f"             {line}" for line in _process_lines(backend["process"])]
    if backend["domains"]:
        how = HOW_DOMAINS[backend["domains_from"]]
        lines.append(f"             charged to: {', '.join(backend['domains'])} ({how})")
    if backend["metrics"] is False:
        lines.append(f"             its steps stay unknown: {backend['metrics_reason']}")
    if backend["error"]:
        lines.append(f"             {backend['error']}")
    return lines


def _process_lines(process: dict[str, Any] | None) -> list[str]:
    """Whose processes do its work, or why that is not known."""
    if process is None:
        return []
    lines = []
    if process["presence"] == "found":
        name = process["name"] or process["cgroup"]
        pid = f" (pid {process['pid']})" if process["pid"] is not None else ""
        others = process["count"] - (process["pid"] is not None)
        lines.append(f"process: {name}{pid}, {others} more, found by {process['found_by']}")
        lines[0] += f"; CPU time of its {process['cpu_time_from']}"
        if process["gpus"]:
            lines.append(f"on: {', '.join(process['gpus'])}")
        elif process["gpus"] is not None:
            lines.append("on: no GPU at present")
    if process["reason"]:
        lines.append(process["reason"])
    if process["remedy"]:
        lines.append(f"to mend it: {process['remedy']}")
    return lines
