"""Where stdout cannot be written, every verb says so in a line and ends with 1."""

import os
from tempfile import TemporaryFile

import pytest
from command import Shell
from warm import run_warm


def run(shell: Shell, words: str, *, stdout: int) -> tuple[int, str]:
    """The exit code and what was said on stderr; `stdout` is closed."""
    with os.fdopen(stdout, "w") as out, TemporaryFile("w+") as talk:
        code = run_warm(
            words.split(),
            folder=shell.folder,
            environment=shell.environment,
            stdout=out,
            stderr=talk,
        )
        talk.seek(0)
        return code, talk.read()


@pytest.mark.parametrize("words", ["--help", "config show", "config show --json"])
def test_a_full_disk_is_said(shell: Shell, words: str) -> None:
    """What typer, rich and print write is checked to its last byte."""
    code, said = run(shell, words, stdout=os.open("/dev/full", os.O_WRONLY))
    assert code == 1
    assert said.startswith("melodi: cannot write: No space left on device; ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", ["--help", "config show", "config show --json"])
def test_a_reader_that_has_gone_is_said(shell: Shell, words: str) -> None:
    """A closed pipe ends a verb without a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    code, said = run(shell, words, stdout=writer)
    assert code == 1
    assert said.startswith("melodi: cannot write: Broken pipe; ")
    assert said.count("\n") == 1
