"""`constraints.txt` pins what a release installs, by names and versions only."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = {
    canonicalize_name(name): version for name, _, version in (s.partition("==") for s in LINES)
}


def released() -> list[Requirement]:
    """What MELODI and its extras require; `dev` is not released."""
    extras = PROJECT["optional-dependencies"]
    texts = [text for name, group in extras.items() if name != "dev" for text in group]
    return [Requirement(text) for text in PROJECT["dependencies"] + texts]


def test_every_line_is_a_name_and_a_version() -> None:
    """No address, no path, no option, nothing twice."""
    for line in LINES:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*", line), line
    assert len(PINNED) == len(LINES)


def test_every_dependency_is_pinned_to_a_version_that_it_allows() -> None:
    """Those of the core and of every extra; after a change run `make constraints`."""
    for wanted in released():
        name = canonicalize_name(wanted.name)
        assert name in PINNED, f"{name} is not pinned; run: make constraints"
        assert wanted.specifier.contains(PINNED[name]), f"{wanted}: run: make constraints"
