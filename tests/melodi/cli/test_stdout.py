"""Where stdout cannot be written, every verb says so in a line and ends with 1."""

import os
import subprocess

import pytest
from command import MELODI, Shell


def run(shell: Shell, words: str, *, stdout: int) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    ended = subprocess.run(
        [MELODI, *words.split()],
        cwd=shell.folder,
        env=shell.environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=shell.timeout,
        check=False,
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("words", ["--help", "config show", "config show --json"])
def test_a_full_disk_is_said(shell: Shell, words: str) -> None:
    """What typer, rich and print write is checked to its last byte."""
    full = os.open("/dev/full", os.O_WRONLY)
    code, said = run(shell, words, stdout=full)
    os.close(full)
    assert code == 1
    assert said.startswith("melodi: cannot write: No space left on device; ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", ["--help", "config show", "config show --json"])
def test_a_reader_that_has_gone_is_said(shell: Shell, words: str) -> None:
    """A closed pipe ends a verb without a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    code, said = run(shell, words, stdout=writer)
    os.close(writer)
    assert code == 1
    assert said.startswith("melodi: cannot write: Broken pipe; ")
    assert said.count("\n") == 1
