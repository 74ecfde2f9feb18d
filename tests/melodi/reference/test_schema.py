"""A JSON schema's types and defaults in words."""

import pytest

from melodi.reference.schema import Schema, default_of, type_of

SHAPES = {"Status": {"enum": ["ok", "error"]}}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": "string", "format": "duration"}, "duration"),
        ({"$ref": "#/$defs/Status"}, "ok or error"),
        ({"anyOf": [{"$ref": "#/$defs/Status"}, {"type": "null"}]}, "ok or error"),
        (
            {"anyOf": [{"const": "auto"}, {"type": "array", "items": {"type": "string"}}]},
            "auto or list of string",
        ),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "object of string"),
        ({"type": "object", "additionalProperties": True}, "object"),
        ({}, "any"),
    ],
)
def test_a_type_is_named_in_words(schema: Schema, words: str) -> None:
    """Choices are joined, references followed, and null is left to the reader."""
    assert type_of(schema, SHAPES) == words


def test_a_default_is_shown_as_it_is_written_and_zero_is_one() -> None:
    """No default and null are the same to a reader; 0 and false are not."""
    shown = [default_of(one) for one in ({"default": 0}, {"default": False}, {"default": None}, {})]
    assert shown == ["0", "false", "", ""]
