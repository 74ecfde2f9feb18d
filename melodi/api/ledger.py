"""`/v1/ledger`: where every joule went."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from melodi.api.answers import list_answer
from melodi.api.models import LedgerList
from melodi.api.moments import parse_moment
from melodi.api.services import Services
from melodi.clock import to_datetime
from melodi.store.books import LedgerBy
from melodi.store.queries import BadQuery


class Wanted(BaseModel):
    """Which minutes, and whether they are added up."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    since: str | None = None
    """Only minutes that began then or later: RFC 3339, or how long ago: `1h`, `7d`."""
    until: str | None = None
    """Only minutes that began before: RFC 3339, or how long ago: `1h`, `7d`."""
    by: LedgerBy = "domain"
    """One line for each domain, one for each of its minutes (then `since` is needed), or one for
    each model and one for what is of none."""


def router(services: Services) -> APIRouter:
    """The routes of this resource."""
    routes = APIRouter(prefix="/v1/ledger", tags=["ledger"])

    @routes.get("", response_model=LedgerList)
    def read_ledger(wanted: Annotated[Wanted, Query()]) -> Response:
        """The accounts of every domain, and what of the measured joules none of them holds.

        By model the idle joules of a GPU are split among the models that were loaded on it, and
        `split` says how: an estimate. Lines of a domain add up to its line by domain.
        """
        if wanted.by == "minute" and wanted.since is None:
            raise BadQuery("by=minute would give every minute ever; say since when: since=1h")
        now = to_datetime(services.clock.wall_ns())
        since, until = (
            None if text is None else parse_moment(text, now=now)
            for text in (wanted.since, wanted.until)
        )
        return list_answer(services.store.ledger(since=since, until=until, by=wanted.by))

    return routes
