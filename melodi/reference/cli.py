"""The command line, read from its verbs."""

from collections.abc import Iterator
from typing import Any

import typer

from melodi.cli.main import app
from melodi.reference.page import Page, Section, code, sentence

TEXT = (
    "What goes to stdout is data, what goes to stderr is talk. Exit codes: 0 done, 1 failed, "
    "2 wrong usage."
)


def cli_page() -> Page:
    """Every verb with its arguments and options."""
    root = typer.main.get_command(app)
    return Page(
        name="cli",
        title="Command line",
        text=TEXT,
        sections=tuple(_section(path, verb) for path, verb in _verbs("melodi", root)),
    )


# Typer keeps its commands' classes to itself, hence Any.
def _verbs(path: str, verb: Any) -> Iterator[tuple[str, Any]]:
    yield path, verb
    for name, inner in getattr(verb, "commands", {}).items():
        yield from _verbs(f"{path} {name}", inner)


def _section(path: str, verb: Any) -> Section:
    context = verb.context_class(verb, info_name=path)
    usage = " ".join([path, *verb.collect_usage_pieces(context)])
    rows = tuple(_row(param, context) for param in verb.params if not param.hidden)
    words = sentence(verb.help or "")
    return Section(
        title=path,
        text=f"{words}\n\n```text\n{usage}\n```" if words else "",
        headings=("argument or option", "meaning"),
        rows=rows,
    )


def _row(param: Any, context: Any) -> tuple[str, str]:
    names, meaning = param.get_help_record(context)
    return code(names), sentence(meaning) if param.help else ""
