"""Numbers that the kernel shows in files, kept open, and opened again after they went away."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from collectors.base import Domain, Measure, NowNs, Reading
from collectors.errors import NotPermitted, ReadFailed
from collectors.meters import Told

_RETRY_NS = 1_000_000_000
_RETRIED = "it is looked for again every second"


def text(path: Path) -> str:
    """What the file says, without the line's end; empty where there is none to be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):  # it vanished since it was listed, or is no text
        return ""


def number(path: Path) -> int | None:
    """The positive number in the file; None where there is none."""
    content = text(path)
    return int(content) or None if content.isdecimal() else None


class FileMeter:
    """One domain that a file shows in microjoules or microwatts; one thread reads it.

    `find` gives the path where the file is now, which may change; None: it is gone. Constructing
    one raises NotPermitted with the remedy `grant`, or ReadFailed where it gives no number.
    """

    def __init__(
        self, domain: Domain, find: Callable[[], Path | None], *, grant: str, now_ns: NowNs
    ) -> None:
        self.domain = domain
        self._counts = domain.measure is Measure.COUNTER
        self._find = find
        self._now_ns = now_ns
        self._retry_at_ns = now_ns()
        self._descriptor: int | None = None
        try:
            self._descriptor = self._open()
        except PermissionError as error:
            raise NotPermitted(f"{domain.name}: {error}", remedy=grant) from error
        except OSError as error:
            raise self._failed(error) from error
        self.value()

    def ask(self) -> Told | ReadFailed:
        """Read the file, which is closed where it holds no number."""
        before_ns = self._now_ns()
        try:
            descriptor = self._reopen() if self._descriptor is None else self._descriptor
            value = int(os.pread(descriptor, 32, 0))
        except (OSError, ValueError) as error:
            self.close()
            return self._failed(error)
        after_ns = self._now_ns()
        if value < 0:
            return self._failed(ValueError(f"{value} is no energy and no power"))
        return before_ns, value, after_ns

    def reading(self, told: Told) -> Reading:
        """What the file said."""
        before_ns, value, after_ns = told
        half_width_ns = (after_ns - before_ns) // 2
        at_ns = before_ns + half_width_ns
        if self._counts:
            return Reading(self.domain.name, at_ns, half_width_ns, value)
        return Reading(self.domain.name, at_ns, half_width_ns, None, value)

    def value(self) -> int:
        """The number now; raises ReadFailed where the file is away or gives none."""
        told = self.ask()
        if isinstance(told, ReadFailed):
            raise told
        return told[1]

    def close(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # what it led to may be gone already
                os.close(self._descriptor)
            self._descriptor = None

    def _reopen(self) -> int:
        now_ns = self._now_ns()
        if now_ns < self._retry_at_ns:
            raise FileNotFoundError("it is away")
        self._retry_at_ns = now_ns + _RETRY_NS
        self._descriptor = self._open()
        return self._descriptor

    def _open(self) -> int:
        path = self._find()
        if path is None:
            raise FileNotFoundError("it is gone")
        return os.open(path, os.O_RDONLY)

    def _failed(self, error: Exception) -> ReadFailed:
        return ReadFailed(f"{self.domain.name}: {error}", remedy=_RETRIED)
