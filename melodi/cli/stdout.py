"""A standard output that says so where it cannot be written, whoever writes to it."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from melodi.errors import OutputError


class _Checked(io.FileIO):
    """Raises OutputError where the system refuses: a full disk, a reader that has gone."""

    def write(self, data: "memoryview | bytes") -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(
                f"cannot write: {error.strerror}; make room, or keep what reads it open"
            ) from None


@contextmanager
def checked_stdout() -> Iterator[None]:
    """Let what is written to stdout, up to the last byte, fail with OutputError."""
    before = sys.stdout
    if before is None:
        yield
        return
    before.flush()
    raw = _Checked(before.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.isatty(),
    )
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputError:
        # What is still in the buffer would be tried again, and told, as the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), raw.fileno())
        raise
