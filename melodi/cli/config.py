"""`melodi config show`: every setting, its value and where it came from."""

from typing import Any

import typer

from melodi.cli.options import Config, Json
from melodi.cli.output import print_json, print_table

app = typer.Typer(help="The settings in force.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `show` a verb of its own."""


@app.command()
def show(*, config: Config = None, as_json: Json = False) -> None:
    """Every setting, its value and where it came from."""
    from melodi.config import load, origins

    settings = load(config)
    sources = origins(config)
    rows = [
        {"setting": name, "value": _hide(name, value), "source": sources.get(name, "default")}
        for name, value in _flat(settings.model_dump(mode="json"))
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["setting", "value", "source"],
        ([row["setting"], str(row["value"]), row["source"]] for row in rows),
    )


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = prefix + key
        found += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return found


def _hide(name: str, value: Any) -> Any:
    """Secrets are not shown: passwords in a database URL, API keys of backends."""
    if name == "database.url":
        return _without_password(value)
    if name == "backends":
        return [one | {"api_key": "***" if one["api_key"] else None} for one in value]
    return value


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "*** (cannot be understood: write it like sqlite:////path/to/melodi.db)"
