"""A reference page: sections of rows, each of which ends with what it means."""

from dataclasses import dataclass

NOTE = "<!-- Made by `make docs` from the code; change it there. -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One thing that is described: a command, a table of settings, a route."""

    title: str
    text: str
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    """Cells as Markdown: a name first, its description last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All that is described in one file."""

    name: str
    """The file's, without its suffix."""
    title: str
    text: str
    sections: tuple[Section, ...]

    def undocumented(self) -> tuple[str, ...]:
        """The sections and rows whose description is empty."""
        untold = [one.title for one in self.sections if not one.text.strip()]
        for section in self.sections:
            untold += [f"{section.title} {row[0]}" for row in section.rows if not row[-1].strip()]
        return tuple(untold)

    def to_markdown(self) -> str:
        """The file's text."""
        blocks = [f"# {self.title}", NOTE, self.text]
        for section in self.sections:
            blocks += [f"## {section.title}", section.text]
            if section.rows:
                blocks.append(_table(section.headings, section.rows))
        return "\n\n".join(blocks) + "\n"


def code(text: str) -> str:
    """Something to be typed or read as it stands; nothing where there is nothing."""
    return f"`{text}`" if text else ""


def sentence(text: str) -> str:
    """One line of prose: its line breaks are those of the source."""
    return " ".join(text.split())


def _table(headings: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
