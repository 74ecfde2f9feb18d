"""The routes of the API, read from its OpenAPI description."""

from collections.abc import Iterator
from typing import cast

from melodi.api.app import create_api
from melodi.api.services import Services
from melodi.reference.page import Page, Section, code, sentence
from melodi.reference.schema import Schema, default_of, resolve, type_of

TEXT = (
    "A running daemon shows the same, to be tried out, at `/docs`, and for programs at "
    '`/openapi.json`. A list is `{"items": [...], "next_cursor": ...}`. An error is a '
    "problem as RFC 9457 has it: `title`, `status`, and `detail`, which ends with what to do."
)


def routes_page() -> Page:
    """Every route with its parameters and what it takes."""
    # Routes are only described here, and none of them asks its services anything.
    schema = create_api(cast(Services, object())).openapi()
    return Page(name="routes", title="HTTP routes", text=TEXT, sections=tuple(_sections(schema)))


def _sections(schema: Schema) -> Iterator[Section]:
    shapes = schema["components"]["schemas"]
    for path, verbs in schema["paths"].items():
        for verb, route in verbs.items():
            rows = [
                _row(one["name"], one["in"], one | one["schema"], shapes, one["required"])
                for one in route.get("parameters", ())
            ]
            yield Section(
                title=code(f"{verb.upper()} {path}"),
                text=sentence(route.get("description", "")),
                headings=("parameter", "in", "type", "default", "meaning"),
                rows=(*rows, *_body(route, shapes)),
            )


def _body(route: Schema, shapes: Schema) -> Iterator[tuple[str, ...]]:
    for content in route.get("requestBody", {}).get("content", {}).values():
        shape = resolve(content["schema"], shapes)
        required = shape.get("required", ())
        for name, field in shape["properties"].items():
            yield _row(name, "body", field, shapes, name in required)


def _row(name: str, place: str, field: Schema, shapes: Schema, required: bool) -> tuple[str, ...]:
    return (
        code(name),
        place,
        type_of(field, shapes),
        "required" if required else code(default_of(field)),
        sentence(field.get("description", "")),
    )
