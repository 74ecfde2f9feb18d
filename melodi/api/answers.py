"""Answers: JSON, lines of JSON, and problems."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import Response

from melodi.api.models import Problem

NDJSON = "application/x-ndjson"
PROBLEM_JSON = "application/problem+json"

PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem",
        "content": {PROBLEM_JSON: {"schema": Problem.model_json_schema()}},
    }
}


def json_answer(value: object, *, status: int = 200) -> Response:
    """`value` (dataclasses and datetimes too) as JSON; times end in Z."""
    return Response(to_json(value), status_code=status, media_type="application/json")


def list_answer(items: Iterable[object], *, next_cursor: str | None = None) -> Response:
    """The shape of every list route."""
    return json_answer({"items": list(items), "next_cursor": next_cursor})


def ndjson_answer(items: Iterable[object], *, headers: dict[str, str]) -> Response:
    """One object on each line."""
    lines = b"".join(to_json(item) + b"\n" for item in items)
    return Response(lines, media_type=NDJSON, headers=headers)


def problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """An error as RFC 9457 has it; `more` are further members of `Problem`."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, **more)
    return Response(
        to_json(body.model_dump(exclude_defaults=True) | {"type": body.type}),
        status_code=status,
        headers=headers,
        media_type=PROBLEM_JSON,
    )


def to_json(value: object) -> bytes:
    """The bytes of every JSON answer."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)
