"""The columns of the record, read from their descriptions and its types."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from types import NoneType
from typing import Any, get_args, get_type_hints

from melodi.datasets.columns import COLUMNS
from melodi.energy.record import DomainEnergy, EnergyRecord
from melodi.reference.page import Page, Section, code, sentence

TEXT = (
    "One row for each request. Unknown is null and never 0; times are UTC. In files and the "
    "database a column of JSON is text. [The glossary](../glossary.md) explains the words."
)


def record_page() -> Page:
    """Every column of a record, and what its column `domains` holds."""
    return Page(
        name="record",
        title="The record",
        text=TEXT,
        sections=(
            Section(
                title="Columns",
                text="The same in the database, in JSON and in exports.",
                headings=("column", "type", "unit", "null", "meaning"),
                rows=tuple(_columns()),
            ),
            Section(
                title="Inside `domains`",
                text="An object for each power domain; the words above, of this domain alone.",
                headings=("key", "null", "meaning"),
                rows=tuple(_keys()),
            ),
        ),
    )


def _columns() -> Iterator[tuple[str, ...]]:
    hints = get_type_hints(EnergyRecord)
    for field in fields(EnergyRecord):
        column = COLUMNS[field.name]
        kind, unit = column.arrow_type, column.unit or ""
        yield code(field.name), kind, unit, _null(hints[field.name]), column.description


def _keys() -> Iterator[tuple[str, ...]]:
    hints, told = get_type_hints(DomainEnergy), _docstrings(DomainEnergy)
    for field in fields(DomainEnergy):
        column = COLUMNS.get(field.name)
        meaning = told.get(field.name) or (column.description if column else "")
        yield code(field.name), _null(hints[field.name]), sentence(meaning)


def _null(hint: Any) -> str:
    return "yes" if NoneType in get_args(hint) else ""


def _docstrings(shape: type) -> dict[str, str]:
    """The docstrings below a class's fields, which Python itself does not keep."""
    (made,) = ast.parse(inspect.getsource(shape)).body
    found = {}
    for field, text in pairwise(getattr(made, "body", [])):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=value)):
                found[name] = str(value)
    return found
