"""Says in words which settings are not usable, and what was probably meant."""

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from melodi.spelling import did_you_mean


def explain(error: ValidationError, *, tables: type[BaseModel], source: Path | str) -> str:
    """A line for each setting that `tables` refused; `source` is where they came from."""
    lines = []
    for one in error.errors():
        place = ".".join(str(part) for part in one["loc"])
        reason = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            reason = "there is no such setting" + _known_instead(one["loc"], tables)
        lines.append(f"  {place}: {reason}")
    return f"settings in {source} are not usable; mend:\n" + "\n".join(lines)


def _known_instead(place: tuple[int | str, ...], tables: type[BaseModel]) -> str:
    """The setting that was probably meant by the last word of a place."""
    section: Any = tables
    for part in place[:-1]:
        if isinstance(part, str):
            section = _inside(section.model_fields[part].annotation)
    return did_you_mean(str(place[-1]), section.model_fields)


def _inside(annotation: Any) -> Any:
    """The table in a field, or in a list of tables."""
    return next(iter(get_args(annotation)), annotation)
