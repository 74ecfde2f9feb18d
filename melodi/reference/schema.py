"""How a JSON schema's parts are written in a table."""

import json
from typing import Any

Schema = dict[str, Any]


def resolve(schema: Schema, shapes: Schema) -> Schema:
    """The shape itself where `schema` only refers to one of `shapes`."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return dict(shapes[name]) if name else schema


def type_of(schema: Schema, shapes: Schema) -> str:
    """`integer`, `list of string`, `ask or as-is`."""
    schema = resolve(schema, shapes)
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " or ".join(str(word) for word in schema["enum"])
    if "anyOf" in schema:
        choices = [type_of(one, shapes) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(choices)
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'], shapes)}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_of(schema['additionalProperties'], shapes)}"
    return str(schema.get("format") or schema.get("type") or "any")


def default_of(schema: Schema) -> str:
    """A default as JSON writes it; empty where there is none or it is unknown."""
    default = schema.get("default")
    return "" if default is None else json.dumps(default)
