"""Which records an export writes, and as what; who only asks needs nothing that writes."""

from dataclasses import dataclass, field
from enum import StrEnum

from melodi.store.queries import RequestFilter


class Format(StrEnum):
    """How a table is written."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    CSV = "csv"

    @property
    def media_type(self) -> str:
        """What HTTP calls it."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.JSONL: "application/x-ndjson",
    Format.CSV: "text/csv; charset=utf-8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Which records are written, and how."""

    format: Format
    wanted: RequestFilter = field(default_factory=RequestFilter)
    provisional: bool = False
    """Whether records that may still change are written too."""
