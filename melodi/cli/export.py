"""`melodi export`: stored records as one file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from melodi.cli.filters import Filters, filtered
from melodi.cli.options import Config
from melodi.cli.output import progress, say
from melodi.cli.stored import must_be_current


class Kind(StrEnum):
    """What the file is."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    CSV = "csv"


@filtered
def export(
    *,
    filters: Filters,
    out: Annotated[Path, typer.Option(help="A file, or a folder for records.FORMAT.")],
    format_: Annotated[Kind, typer.Option("--format", help="What the file is.")] = Kind.PARQUET,
    provisional: Annotated[
        bool, typer.Option("--provisional", help="Also those that may still change.")
    ] = False,
    config: Config = None,
) -> None:
    """Write the records to a file that is whole or not there, oldest first."""
    from melodi.api.questions import ExportWanted
    from melodi.clock import SystemClock, to_datetime
    from melodi.config import load
    from melodi.datasets.export import count_rows, export_file
    from melodi.datasets.selection import Format

    url = load(config).database.url
    wanted = ExportWanted(format=Format(format_.value), provisional=provisional, **filters)
    what = wanted.to_export(to_datetime(SystemClock().wall_ns()))
    path = out if out.suffix and not out.is_dir() else out / f"records.{format_}"
    must_be_current(url)
    with progress() as bar:
        task = bar.add_task("records", total=count_rows(url, what))
        count = export_file(url, path, what, on_rows=lambda rows: bar.advance(task, rows))
    say(f"{count:,} records in {path}")
