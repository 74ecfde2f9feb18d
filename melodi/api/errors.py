"""Every error as problem+json, none with a traceback."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from melodi.api.answers import problem
from melodi.errors import BackendError, StoreError
from melodi.store.queries import BadQuery


def handle_errors(app: FastAPI) -> None:
    """Have `app` answer what its routes raise."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(BadQuery, _answer_with(422))
    app.add_exception_handler(BackendError, _answer_with(502))
    app.add_exception_handler(StoreError, _answer_with(503))
    # Starlette raises the error again once this has answered, so that the server logs it.
    app.add_exception_handler(Exception, _unexpected)


def _http(_: Request, error: Any) -> Response:
    return problem(error.status_code, str(error.detail), headers=error.headers)


def _invalid(_: Request, error: Any) -> Response:
    errors = [
        {"at": ".".join(str(part) for part in one["loc"]), "reason": one["msg"]}
        for one in error.errors()
    ]
    detail = "; ".join(f"{one['at']}: {one['reason']}" for one in errors)
    return problem(422, detail, errors=errors)


def _answer_with(status: int) -> Any:
    def handler(_: Request, error: Exception) -> Response:
        return problem(status, str(error))

    return handler


def _unexpected(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return problem(500, "MELODI failed at this; its log says where")
