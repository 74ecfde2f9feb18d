"""Runs `melodi` as a person would."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from warm import MELODI, run_cold, run_warm


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Shell:
    """A folder to work in, with data of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("MELODI_")}
        own = {"XDG_DATA_HOME": str(self.folder / "data"), "COLUMNS": "160", "NO_COLOR": "1"}
        return kept | own

    def melodi(self, *words: str | Path, **environment: str) -> Ended:
        """Run `melodi` with these words, in a process of its own."""
        # What the loader reads must be there when a process begins; a warm one has begun.
        run = run_cold if "LD_LIBRARY_PATH" in environment else run_warm
        with TemporaryFile("w+") as out, TemporaryFile("w+") as talk:
            code = run(
                [str(one) for one in words],
                folder=self.folder,
                environment=self.environment | environment,
                stdout=out,
                stderr=talk,
            )
            out.seek(0)
            talk.seek(0)
            return Ended(code, out.read(), talk.read())

    def start(self, *words: str | Path, **environment: str) -> "subprocess.Popen[str]":
        """Start `melodi` with these words, and go on."""
        return subprocess.Popen(
            [MELODI, *words],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def urls_said(process: "subprocess.Popen[str]", *names: str) -> list[str]:
    """The URLs that a server says under these names when it answers; it may log before it does."""
    said: list[str] = []
    found: dict[str, str] = {}
    while not found.keys() >= set(names):
        said.append(process.stderr.readline())
        assert said[-1], f"it ended: {''.join(said)}"
        word, *rest = said[-1].split() or [""]
        if word in names:
            found[word] = rest[0]
    return [found[name] for name in names]


def is_clear(text: str) -> bool:
    """A message for people: something is said, and there is no traceback."""
    return bool(text.strip()) and not re.search(r"Traceback|^\s+File ", text, re.MULTILINE)
