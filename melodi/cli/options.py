"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; default: ./melodi.toml where there is one."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")]
