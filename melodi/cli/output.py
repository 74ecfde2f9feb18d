"""What every verb prints with: tables for people, JSON for programs, talk on stderr."""

import json
import math
import select
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from melodi.energy.record import EnergyRecord

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

UNKNOWN = "-"
TAKEN_SECONDS = 1.0
MOST_DECIMALS = 6


def say(text: str) -> None:
    """A line of talk; left unsaid where stderr is a full pipe that nobody empties."""
    if _is_taken(sys.stderr):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def _is_taken(stream: TextIO) -> bool:
    """Whether a line can be written within a moment."""
    try:
        ready = select.select([], [stream.fileno()], [], TAKEN_SECONDS)
    except (OSError, ValueError):
        # No file of the system's: a test's, or a number beyond what can be asked for.
        return True
    return bool(ready[1])


def print_json(value: object) -> None:
    """One JSON document on stdout; times as RFC 3339, NaN never."""
    text = json.dumps(value, default=_plain, indent=2, allow_nan=False, ensure_ascii=False)
    print(text)  # noqa: T201


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> "Table":
    """A table; a heading that begins with `>` is a column of numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    for heading in headings:
        number = heading.startswith(">")
        made.add_column(
            heading.removeprefix(">"),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="ellipsis",
        )
    for row in rows:
        made.add_row(*row)
    return made


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> None:
    """A table on stdout, as `table` makes it."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table(headings, rows, title=title))


def progress() -> "Progress":
    """A progress bar on stderr; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits; `-` where it is unknown."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    if decimals > MOST_DECIMALS:
        return f"{value:.0e}"
    return f"{value:,.{decimals}f}"


def span(low: float | None, high: float | None) -> str:
    """Bounds, as `low..high`."""
    return UNKNOWN if low is None or high is None else f"{number(low)}..{number(high)}"


def short(word: str, width: int) -> str:
    """At most `width` characters of a word."""
    return word if len(word) <= width else word[: width - 1] + "…"


def text(value: object) -> str:
    """A word; `-` where it is unknown."""
    return UNKNOWN if value is None else str(value)


RECORD_COLUMNS: dict[str, Callable[[EnergyRecord], str]] = {
    ">started": lambda one: one.started_at.strftime("%H:%M:%S"),
    "backend": lambda one: short(one.backend, 10),
    "model": lambda one: short(text(one.model), 14),
    "task": lambda one: short(text(one.task), 10),
    ">status": lambda one: one.status.value,
    ">in": lambda one: text(one.input_tokens),
    ">out": lambda one: text(one.output_tokens),
    ">sec": lambda one: number(one.duration_seconds),
    ">joules": lambda one: number(one.energy_joules),
    ">low..high": lambda one: span(one.low_joules, one.high_joules),
    ">J/tok": lambda one: number(one.joules_per_output_token),
    "quality": lambda one: one.quality.value + (" ..." if one.provisional else ""),
}


def print_records(records: Iterable[EnergyRecord]) -> None:
    """A table of records."""
    print_table(
        list(RECORD_COLUMNS), ([show(one) for show in RECORD_COLUMNS.values()] for one in records)
    )


def record_json(record: EnergyRecord) -> dict[str, Any]:
    """A record as the API shows it."""
    return asdict(record)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON form")
