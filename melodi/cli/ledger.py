"""`melodi ledger`: where every joule went."""

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from melodi.cli.options import Config, Json
from melodi.cli.output import number, print_json, print_table, say, text
from melodi.cli.stored import opened

if TYPE_CHECKING:
    from melodi.store.books import LedgerLine

ACCOUNTS = (
    *("active", "idle_share", "load", "idle", "foreign", "unattributed", "tail", "residual"),
)
"""The tail is a part of unattributed."""


class By(StrEnum):
    """What is a line of its own."""

    DOMAIN = "domain"
    MINUTE = "minute"
    MODEL = "model"


def ledger(
    *,
    since: Annotated[str | None, typer.Option(help="RFC 3339, or how long ago: 1h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="As --since.")] = None,
    by: Annotated[By, typer.Option(help="What is a line of its own.")] = By.DOMAIN,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The accounts of every power domain; the residual is what none of them holds."""
    from melodi.api.moments import parse_moment
    from melodi.clock import SystemClock, to_datetime
    from melodi.config import load

    now = to_datetime(SystemClock().wall_ns())
    first, last = (None if one is None else parse_moment(one, now=now) for one in (since, until))
    with opened(load(config).database.url) as store:
        lines = store.ledger(since=first, until=last, by=by.value)
    if as_json:
        print_json({"items": [asdict(line) for line in lines], "next_cursor": None})
    else:
        _print(lines, by)


def _print(lines: "tuple[LedgerLine, ...]", by: By) -> None:
    headings = ["host", "domain", *([by.value] if by is not By.DOMAIN else [])]
    print_table(
        [
            *headings,
            ">measured J",
            *(f">{name.replace('_', ' ')}" for name in ACCOUNTS),
            ">blind s",
        ],
        (
            [
                line.host,
                line.domain,
                *([line.minute.strftime("%m-%d %H:%M")] if line.minute else []),
                *([text(line.model)] if by is By.MODEL else []),
                number(line.measured_joules),
                *(number(getattr(line, f"{name}_joules")) for name in ACCOUNTS),
                number(line.unmeasured_seconds),
            ]
            for line in lines
        ),
    )
    if splits := sorted({line.split for line in lines if line.split}):
        say(f"idle joules of models loaded at once are split ({', '.join(splits)}): an estimate")
