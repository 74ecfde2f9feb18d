"""Puts a run on a real card into docs/measuring.md, and its picture beside it.

    python -m benchmarks.gpu.write DIR

DIR is what `benchmarks/gpu/run.sh` wrote: the run may have been made on another machine.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.end_to_end.page import page

DOCS = Path(__file__).resolve().parents[2] / "docs"
PICTURE = "images/gpu-joules-per-token.png"
BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"


def into_page(text: str, found: dict[str, Any], *, picture: bool) -> str:
    """`text` with the run between its markers."""
    if found["device"] == "cpu":
        raise SystemExit("this run had scripted power: it is no measurement; run it on a card")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    parts = [f"Written by `python -m benchmarks.gpu.write`; run at {found['made_at']}."]
    parts += [f"![Joules per output token by requests at once]({PICTURE})"] if picture else []
    parts += [page(found).strip()]
    return f"{before}{BEGIN}\n" + "\n\n".join(parts) + f"\n{END}{after}"


def main() -> None:
    folder = Path(sys.argv[1])
    found = json.loads((folder / "end_to_end.json").read_text())
    drawn = folder / "joules-per-token.png"
    target = DOCS / "measuring.md"
    target.write_text(into_page(target.read_text(), found, picture=drawn.exists()))
    if drawn.exists():
        (DOCS / PICTURE).parent.mkdir(exist_ok=True)
        shutil.copy(drawn, DOCS / PICTURE)


if __name__ == "__main__":
    main()
