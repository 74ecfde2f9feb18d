"""Runs `melodi`, by its script or in a child of a process that has imported it already."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

from waiting import PATIENCE_SECONDS

MELODI = Path(sys.executable).with_name("melodi")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["melodi.cli.main", "melodi.daemon.demo", "melodi.daemon.serve", "melodi.datasets.export"]
)


def run_cold(
    words: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdout: IO[Any],
    stderr: IO[Any],
) -> int:
    """Run the script to its end; its exit code."""
    command = [MELODI, *words]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=stdout,
        stderr=stderr,
        timeout=PATIENCE_SECONDS,
        check=False,
    ).returncode


def run_warm(
    words: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdout: IO[Any],
    stderr: IO[Any],
) -> int:
    """The same, without the seconds of computing that its imports take.

    The child has an environment, a folder, files and signals of its own, as any process.
    """
    files = [DupFd(one.fileno()) for one in (stdout, stderr)]
    child = _CONTEXT.Process(target=_main, args=(list(words), folder, dict(environment), *files))
    child.start()
    child.join(PATIENCE_SECONDS)
    if child.exitcode is None:
        child.kill()
        child.join()
        raise TimeoutError(f"melodi {' '.join(words)} did not end in {PATIENCE_SECONDS:.0f} s")
    return child.exitcode


def _main(
    words: list[str], folder: Path, environment: dict[str, str], stdout: Any, stderr: Any
) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, given in enumerate((nothing, stdout.detach(), stderr.detach())):
        os.dup2(given, number)
        os.close(given)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(MELODI), *words]
    from melodi.cli.main import main

    main()
