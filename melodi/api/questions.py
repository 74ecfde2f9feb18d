"""Questions about many records, as routes and verbs ask them alike, and their answers."""

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Protocol

import sqlalchemy as sa

from melodi.analysis.compare import CompareQuery, read_comparison
from melodi.api.filters import Filters
from melodi.api.moments import parse_step
from melodi.datasets.selection import Export, Format
from melodi.store.figures import Rates
from melodi.store.histogram import ERROR_RATIO
from melodi.store.queries import BadQuery
from melodi.store.stats import StatsQuery, parse_by, read_stats


class StatsWanted(Filters):
    """Which records, and how they are put together."""

    by: str = ""
    """Names with commas between: host, backend, model, policy; campaign, task, status."""

    def to_query(self, now: datetime) -> StatsQuery:
        """The same for the store; BadQuery where it cannot be understood."""
        return StatsQuery(wanted=self.to_filter(now), by=parse_by(self.by))


class SeriesWanted(StatsWanted):
    """Which records, and how long the buckets are."""

    step: str
    """Length of a bucket: 60s, 5m, 1h, 1d; buckets begin at whole steps since 1970 in UTC."""

    def to_query(self, now: datetime) -> StatsQuery:
        """The same for the store; BadQuery where it cannot be understood."""
        wanted = self.to_filter(now)
        if wanted.since is None:
            raise BadQuery("a series over all time would be long; say since when: since=1h")
        if wanted.until is None:
            wanted = replace(wanted, until=now)
        step_seconds = parse_step(self.step)
        return StatsQuery(wanted=wanted, by=parse_by(self.by), step_seconds=step_seconds)


class CompareWanted(Filters):
    """Which records, and which two sides."""

    by: str
    """What they differ in: host, backend, model, policy, campaign, task, status, or `tag:NAME`."""
    a: str
    """The value of the one side."""
    b: str
    """The value of the other."""

    def to_query(self, now: datetime) -> CompareQuery:
        """The same for the store; BadQuery where it cannot be understood."""
        return CompareQuery(by=self.by, a=self.a, b=self.b, wanted=self.to_filter(now))


class ExportWanted(Filters):
    """Which records, and as what."""

    format: Format = Format.PARQUET
    """What the file is."""
    provisional: bool = False
    """Whether records are written whose energy may still change."""

    def to_export(self, now: datetime) -> Export:
        """The same for the export; BadQuery where it cannot be understood."""
        return Export(format=self.format, wanted=self.to_filter(now), provisional=self.provisional)


class Asks(Protocol):
    """What answers questions: a RecordStore."""

    def ask(self, question: Callable[[sa.Connection], Any], /) -> Any: ...


def stats_answer(store: Asks, query: StatsQuery, *, rates: Rates) -> dict[str, Any]:
    """What `/v1/stats`, `/v1/series` and `melodi stats` answer."""
    groups = store.ask(lambda connection: read_stats(connection, query, rates=rates))
    return {
        "items": [group.flat() for group in groups],
        "next_cursor": None,
        "percentile_error_ratio": ERROR_RATIO,
    }


def compare_answer(store: Asks, query: CompareQuery) -> dict[str, Any]:
    """What `/v1/compare` and `melodi compare` answer."""
    return asdict(store.ask(lambda connection: read_comparison(connection, query)))
