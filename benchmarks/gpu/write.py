"""Puts a run on a real card into docs/measuring.md, and its picture there and into the README.

    python -m benchmarks.gpu.write DIR

DIR is what `benchmarks/gpu/run.sh` wrote: the run may have been made on another machine.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.end_to_end.page import page
from benchmarks.gpu.probe.page import heading
from benchmarks.page import write_between_marks

ROOT = Path(__file__).resolve().parents[2]
PICTURE = "images/gpu-joules-per-token.png"


def tables(found: dict[str, Any], *, picture: bool) -> str:
    """All that was found; refuses scripted power."""
    if found["device"] == "cpu":
        raise SystemExit("this run had scripted power: it is no measurement; run it on a card")
    parts = [f"Written by `python -m benchmarks.gpu.write`; run at {found['made_at']}."]
    parts += [shown(PICTURE)] if picture else []
    return "\n\n".join([*parts, page(found).strip()])


def caption(found: dict[str, Any]) -> str:
    """The picture, and on which card it was made."""
    models = " and ".join(f"{one['parameters'] / 1e9:.1f}" for one in found["models"].values())
    return (
        f"{shown(f'docs/{PICTURE}')}\n\n{heading(found['probe'] or {})} Llamas with random weights "
        f"of {models} billion parameters; [measuring](docs/measuring.md) has the tables."
    )


def shown(path: str) -> str:
    return f"![Joules per output token by requests at once]({path})"


def main() -> None:
    folder = Path(sys.argv[1])
    found = json.loads((folder / "end_to_end.json").read_text())
    drawn = folder / "joules-per-token.png"
    pages = {ROOT / "docs" / "measuring.md": tables(found, picture=drawn.exists())}
    if drawn.exists():
        pages[ROOT / "README.md"] = caption(found)
        (ROOT / "docs" / PICTURE).parent.mkdir(exist_ok=True)
        shutil.copy(drawn, ROOT / "docs" / PICTURE)
    for path, new in pages.items():
        write_between_marks(path, "gpu", new)


if __name__ == "__main__":
    main()
