"""Writes the reference pages into a folder: `python -m melodi.reference docs/reference`."""

import sys
from pathlib import Path

from melodi.reference.pages import pages


def main(folder: Path) -> None:
    """Write every page; nothing else in the folder is touched."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in pages():
        (folder / f"{page.name}.md").write_text(page.to_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
