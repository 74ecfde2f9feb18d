"""The options by which several verbs choose records."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from collectors.base import Origin
from melodi.energy.record import Quality, Status

Filters = dict[str, Any]
"""What was asked for, by the names of the API's parameters; without what was not."""

_OPTIONS: dict[str, Any] = {
    "host": Annotated[str | None, typer.Option(help="Only of this host.")],
    "backend": Annotated[str | None, typer.Option(help="Only of this backend.")],
    "model": Annotated[str | None, typer.Option(help="Only of this model.")],
    "campaign": Annotated[str | None, typer.Option(help="Only of this campaign.")],
    "task": Annotated[str | None, typer.Option(help="Only of this task.")],
    "status": Annotated[Status | None, typer.Option(help="Only those that ended so.")],
    "quality": Annotated[Quality | None, typer.Option(help="Only of this quality.")],
    "footprint": Annotated[
        str | None, typer.Option(help="Only those that cover gpu, gpu+cpu, ...")
    ],
    "origin": Annotated[Origin | None, typer.Option(help="Only of this origin.")],
    "tag": Annotated[list[str] | None, typer.Option(help="NAME=VALUE; several must all hold.")],
    "since": Annotated[str | None, typer.Option(help="RFC 3339, or how long ago: 1h, 7d.")],
    "until": Annotated[str | None, typer.Option(help="As --since.")],
    "min_energy_joules": Annotated[
        float | None, typer.Option("--min-energy-joules", help="Only of so many or more.")
    ],
    "max_energy_joules": Annotated[
        float | None, typer.Option("--max-energy-joules", help="Only of so many or fewer.")
    ],
}


def filtered(verb: Callable[..., None]) -> Callable[..., None]:
    """Give `verb` the options that choose records; it gets them as its keyword `filters`."""

    @wraps(verb)
    def with_options(**given: Any) -> None:
        asked = {name: given.pop(name) for name in _OPTIONS}
        unasked: tuple[object, ...] = (None, [])
        verb(filters={name: one for name, one in asked.items() if one not in unasked}, **given)

    hints = get_type_hints(verb, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in inspect.signature(verb).parameters.values()
        if parameter.name != "filters"
    ]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    # What the parser of the command line looks at.
    signature = inspect.Signature([*shared, *own], return_annotation=None)
    with_options.__signature__ = signature  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in [*shared, *own]}
    return with_options
