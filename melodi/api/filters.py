"""Which records are asked for: the filters that many routes and verbs share."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from collectors.base import Origin
from melodi.api.moments import parse_moment
from melodi.energy.record import Quality, Status
from melodi.store.queries import RequestFilter, parse_tag


class Filters(BaseModel):
    """What a record must be; a parameter that does not exist is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    host: str | None = None
    """Only of this host."""
    backend: str | None = None
    """Only of this backend."""
    model: str | None = None
    """Only of this model."""
    campaign: str | None = None
    """Only of this campaign."""
    task: str | None = None
    """Only of this task."""
    status: Status | None = None
    """Only those that ended so."""
    quality: Quality | None = None
    """Only of this quality."""
    footprint: str | None = None
    """Only those whose joules cover this: `gpu`, `gpu+cpu`, `gpu+cpu+dram`, ..."""
    origin: Origin | None = None
    """Only of this origin."""
    tag: list[str] = []
    """`name=value` or `name:value`; several must all be there."""
    since: str | None = None
    """Only those that began then or later: RFC 3339, or how long ago: `1h`, `7d`."""
    until: str | None = None
    """Only those that began before: RFC 3339, or how long ago: `1h`, `7d`."""
    min_energy_joules: float | None = None
    """Only those of so many joules or more; an unknown energy is neither."""
    max_energy_joules: float | None = None
    """Only those of so many joules or fewer."""

    def to_filter(self, now: datetime) -> RequestFilter:
        """The same for the store; BadQuery where a tag or a moment cannot be understood."""
        asked = self.model_dump(include=set(Filters.model_fields) - {"tag", "since", "until"})
        return RequestFilter(
            **asked,
            tags=tuple(parse_tag(text) for text in self.tag),
            since=None if self.since is None else parse_moment(self.since, now=now),
            until=None if self.until is None else parse_moment(self.until, now=now),
        )
