"""Puts what a benchmark found into a page of the documentation."""

from pathlib import Path


def write_between_marks(page: Path, name: str, text: str) -> None:
    """Put `text` into the file, between the marks called `name`."""
    page.write_text(between_marks(page.read_text(), name, text))


def between_marks(page: str, name: str, text: str) -> str:
    """The page with `text` between the marks called `name`; raises ValueError without them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{text}\n{end}{after}"
