"""`/v1/exports`: stored records as one file."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from melodi.api.apart import Job
from melodi.api.questions import ExportWanted
from melodi.api.services import Services
from melodi.clock import to_datetime
from melodi.datasets.selection import Format
from melodi.errors import CutShort, StoreError

_CONTENT: dict[str, dict[str, object]] = {one.media_type.partition(";")[0]: {} for one in Format}


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(prefix="/v1/exports", tags=["exports"])

    @routes.get("", response_class=Response, responses={200: {"content": _CONTENT}})
    async def export(wanted: Annotated[ExportWanted, Query()]) -> Response:
        """The records, oldest first, as Parquet, JSON lines or CSV.

        A file that breaks off ends without its proper end: the client sees an error.
        """
        now = to_datetime(services.clock.wall_ns())
        wanted.to_export(now)
        parts = services.apart(Job(question=wanted, now=now))
        # What cannot be exported at all is still an answer with a status of its own.
        first = await anext(parts, b"")
        name = f"records.{wanted.format}"
        return StreamingResponse(
            _file(first, parts),
            media_type=wanted.format.media_type,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    return routes


async def _file(first: bytes, parts: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(parts):
        try:
            yield first
            async for part in parts:
                yield part
        except StoreError as error:
            raise CutShort(str(error)) from error
