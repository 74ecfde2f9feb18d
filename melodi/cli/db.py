"""`melodi db`: the database's schema."""

import typer

from melodi.cli.options import Config
from melodi.cli.output import say

app = typer.Typer(help="The database.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `upgrade` a verb of its own."""


@app.command()
def upgrade(*, config: Config = None) -> None:
    """Create the tables, or bring them up to this version; nothing is lost."""
    from melodi.config import load
    from melodi.store.migrate import upgrade as upgrade_schema

    upgrade_schema(load(config).database.url)
    say("the database is up to date")
