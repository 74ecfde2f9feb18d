"""Puts the verbs together, and turns errors into a message and an exit code."""

import sys
from typing import Annotated

import typer

import melodi
from melodi.cli import (
    compare,
    config,
    db,
    demo,
    doctor,
    export,
    ledger,
    measure,
    recompute,
    requests,
    run,
    serve,
    simulate,
    stats,
    top,
)
from melodi.cli.output import say
from melodi.cli.stdout import checked_stdout
from melodi.errors import ConfigError, MelodiError, PromptSetError

FAILED, WRONG_USAGE = 1, 2

app = typer.Typer(
    name="melodi",
    help="What did this prompt cost in joules?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("serve")(serve.serve)
app.command("run")(run.run)
app.command("requests")(requests.requests)
app.command("stats")(stats.stats)
app.command("compare")(compare.compare)
app.command("ledger")(ledger.ledger)
app.command("recompute")(recompute.recompute)
app.command("export")(export.export)
app.command("measure", context_settings={"allow_interspersed_args": False})(measure.measure)
app.command("top")(top.top)
app.command("doctor")(doctor.doctor)
app.command("simulate")(simulate.simulate)
app.add_typer(db.app, name="db")
app.add_typer(config.app, name="config")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"melodi {melodi.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The script `melodi`. Exit codes: 0 done, 1 failed, 2 wrong usage."""
    try:
        with checked_stdout():
            app()
    except MelodiError as error:
        say(f"melodi: {error}")
        sys.exit(WRONG_USAGE if isinstance(error, ConfigError | PromptSetError) else FAILED)
