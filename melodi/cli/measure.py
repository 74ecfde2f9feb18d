"""`melodi measure`: the energy of any command."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from melodi.cli.options import Config, Json
from melodi.cli.output import number, print_json, print_table, say, span

if TYPE_CHECKING:
    from melodi.daemon.measure import Measured
    from melodi.energy.workload import Workload

UNMEASURED = 3


def measure(
    command: Annotated[list[str], typer.Argument(help="What to run, after `--`.")],
    *,
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, shown with it.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Inputs that it processes.")] = None,
    macs: Annotated[
        int | None, typer.Option(min=1, help="Multiply-accumulates of one sample.")
    ] = None,
    params: Annotated[int | None, typer.Option(min=1, help="Parameters of its model.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with 3 where a domain was not measured.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Run a command and tell what it took. Ends with the command's own exit code.

    With --json the command's output goes to stderr.
    """
    import asyncio

    from melodi.clock import SystemClock
    from melodi.config import load
    from melodi.daemon.measure import measure as measure_command
    from melodi.energy.workload import Workload
    from melodi.errors import CommandError
    from melodi.logs import configure_logging

    labels = dict(_label(text) for text in label or ())
    work = Workload(samples=samples, macs=macs, params=params)
    configure_logging()
    try:
        measured = asyncio.run(
            measure_command(command, load(config), clock=SystemClock(), output_to_stderr=as_json)
        )
    except CommandError as error:
        say(f"melodi: {error}")
        raise typer.Exit(error.exit_code) from None
    answer = _answer(measured, work, labels)
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    unknown = [name for name, one in measured.domains.items() if one.mean_watts is None]
    for name in unknown:
        say(f"{name} was not measured: {', '.join(measured.domains[name].reasons)}")
    if not measured.domains:
        say("nothing can be measured on this machine; see: melodi doctor")
    missing = bool(unknown) or not measured.domains
    raise typer.Exit(measured.exit_code or (UNMEASURED if strict and missing else 0))


def _label(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise typer.BadParameter(f"{text!r} is no label; write NAME=VALUE", param_hint="--label")
    return name, value


def _answer(measured: "Measured", work: "Workload", labels: dict[str, str]) -> dict[str, Any]:
    from dataclasses import asdict

    joules = measured.joules
    return asdict(measured) | {
        "labels": labels,
        "joules_per_sample": work.joules_per_sample(joules),
        "work_per_joule": work.work_per_joule(joules),
        "macs_per_parameter": work.macs_per_parameter,
    }


def _print(answer: dict[str, Any]) -> None:
    rows = [
        [
            name,
            number(one["joules"], 4),
            span(one["low_joules"], one["high_joules"]),
            number(one["mean_watts"], 4),
            one["quality"],
            "" if one["summable"] else "not added up",
        ]
        for name, one in answer["domains"].items()
    ]
    print_table(["domain", ">joules", ">low..high", ">mean watts", "quality", ""], rows)
    for label, value in answer["labels"].items():
        print(f"{label}: {value}")  # noqa: T201
    ratios = {
        "J": "joules",
        "s": "duration_seconds",
        "J per sample": "joules_per_sample",
        "MACs per joule": "work_per_joule",
        "MACs per parameter": "macs_per_parameter",
    }
    for unit, name in ratios.items():
        if answer[name] is not None or name == "joules":
            print(f"{number(answer[name], 4):>12} {unit}")  # noqa: T201
