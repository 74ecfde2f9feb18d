"""`/v1/windows`: the energy of named stretches of time."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, HTTPException, Path, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from melodi.api.answers import json_answer, list_answer, problem
from melodi.api.services import Services
from melodi.energy.window import WindowEnergy
from melodi.energy.workload import Workload
from melodi.store.windows import Description, Window, WindowStatus


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise ValueError(f"this cannot be kept as JSON ({error}); leave it out") from None
    return value


Count = Annotated[int, Field(gt=0, lt=2**63)]
Metadata = Annotated[dict[str, Any], AfterValidator(_storable)]
WindowId = Annotated[str, Path(description="The window's `id`.")]


class WindowEnd(BaseModel):
    """What is known once the work is done; it completes or replaces what was said at first."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    samples: Count | None = None
    """How many inputs (prompts, images, batches) were processed."""
    macs: Count | None = None
    """Multiply-accumulate operations that one sample takes."""
    params: Count | None = None
    """Parameters of the model."""
    metadata: Metadata = {}
    """Anything else worth keeping with it, as JSON."""

    def described(self) -> Description:
        """The same for the daemon."""
        work = Workload(samples=self.samples, macs=self.macs, params=self.params)
        return Description(metadata=self.metadata, work=work)


class WindowBegin(WindowEnd):
    """What is to be measured."""

    name: str | None = None
    """What to call it; it need not be the only one of that name."""
    labels: dict[str, str] = {}
    """Words to find and to group it by."""

    def described(self) -> Description:
        """The same for the daemon."""
        work = Workload(samples=self.samples, macs=self.macs, params=self.params)
        return Description(name=self.name, labels=self.labels, metadata=self.metadata, work=work)


class WindowAnswer(BaseModel):
    """A window; its energy is null until it has ended, and where it was not measured."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    host: str
    name: str | None
    status: WindowStatus
    started_at: datetime
    duration_seconds: float | None
    joules: float | None
    """Over the domains that may be summed; null where one of them is unknown."""
    domains: dict[str, WindowEnergy]
    labels: dict[str, str]
    metadata: dict[str, Any]
    samples: int | None
    macs: int | None
    """MACs per sample."""
    params: int | None
    joules_per_sample: float | None
    """joules / samples."""
    work_per_joule: float | None
    """MACs per joule: macs x samples / joules."""
    macs_per_parameter: float | None
    """macs / params."""


class WindowList(BaseModel):
    """Windows, newest first."""

    items: list[WindowAnswer]
    next_cursor: str | None


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(prefix="/v1/windows", tags=["windows"])

    @routes.get("", response_model=WindowList)
    async def list_windows(
        limit: Annotated[int, Query(ge=1, le=1000, description="How many, at most 1000.")] = 100,
        cursor: Annotated[
            str | None, Query(description="`next_cursor` of the page before.")
        ] = None,
    ) -> Response:
        """Windows, newest first."""
        page = await services.windows.page(cursor=cursor, limit=limit)
        return list_answer(map(_answer, page.items), next_cursor=page.next_cursor)

    @routes.post("", response_model=WindowAnswer, status_code=201)
    async def begin_window(wanted: WindowBegin) -> Response:
        """Begin a window now; end it by its `id`."""
        window = await services.windows.begin(wanted.described())
        return json_answer(_answer(window), status=201)

    @routes.get("/{window_id}", response_model=WindowAnswer)
    async def get_window(window_id: WindowId) -> Response:
        """One window."""
        return json_answer(_answer(await known(window_id)))

    @routes.post("/{window_id}/end", response_model=WindowAnswer)
    async def end_window(window_id: WindowId, done: WindowEnd) -> Response:
        """End a window now; answers once its energy is known, after 3 seconds at the latest."""
        ended = await services.windows.end(window_id, done.described())
        if ended is not None:
            return json_answer(_answer(ended))
        window = await known(window_id)
        if window.status is not WindowStatus.OPEN:
            return problem(409, f"this window is {window.status} already; begin another one")
        return problem(409, f"this window is open on {window.host}, or being ended; ask it there")

    async def known(window_id: str) -> Window:
        window = await services.windows.get(window_id)
        if window is None:
            raise HTTPException(404, f"there is no window {window_id!r}")
        return window

    return routes


def _answer(window: Window) -> dict[str, Any]:
    work, joules = window.work, window.joules
    return asdict(window) | {
        "joules_per_sample": work.joules_per_sample(joules),
        "work_per_joule": work.work_per_joule(joules),
        "macs_per_parameter": work.macs_per_parameter,
    }
