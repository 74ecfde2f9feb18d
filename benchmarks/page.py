"""Puts what a benchmark found into a page of the documentation."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median


def write_between_marks(page: Path, name: str, text: str) -> None:
    """Put `text` into the file, between the marks called `name`."""
    page.write_text(between_marks(page.read_text(), name, text))


def between_marks(page: str, name: str, text: str) -> str:
    """The page with `text` between the marks called `name`; raises ValueError without them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def pair(values: Sequence[float]) -> str:
    """Median / 90th percentile."""
    ordered = sorted(values)
    return f"{median(ordered):.1f} / {ordered[int(0.9 * (len(ordered) - 1))]:.1f}"
