"""One log on stderr for all of the process: a line an event, warnings and worse by default."""

import logging
import os
import sys
import threading
from asyncio import CancelledError
from collections import deque
from typing import TextIO

import structlog

from melodi.errors import CutShort

LINES_KEPT = 1_000
FLUSH_SECONDS = 1.0
_lost = 0


def lines_lost() -> int:
    """Lines of the log that nobody took in time, since the start."""
    return _lost


class PatientHandler(logging.Handler):
    """Hands lines to a thread that writes them, because the one that logs may carry traffic.

    A stream that nobody reads, or a disk that hangs, costs lines, which are counted, and nothing
    else.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._unsaid = 0
        self._writing = False
        threading.Thread(target=self._write_all, name="melodi-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  a line that cannot be made must not be the last
            self._lose(1)
            return
        with self._changed:
            if len(self._lines) >= LINES_KEPT:
                self._lose(1)
                return
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait a moment for what has been said to be written."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._lines or self._writing), FLUSH_SECONDS)

    def close(self) -> None:
        """Let the thread end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        super().close()

    def _lose(self, lines: int) -> None:
        global _lost
        with self._changed:
            _lost += lines
            self._unsaid += lines

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._closing)
                if not self._lines:
                    return
                lines = [self._lines.popleft()]
                if self._unsaid and not self._lines:
                    lines.append(f"{self._unsaid} lines of the log were lost: nobody took them")
                    self._unsaid = 0
                self._writing = True
            try:
                _write(self._stream, "\n".join(lines) + "\n")
            except (OSError, ValueError):
                self._lose(1)


def _write(stream: TextIO, text: str) -> None:
    """Write past the stream's buffer, whose lock would hold up the end of the process."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        stream.write(text)
        return
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(descriptor, data) :]


class _CutsAreNoErrors(logging.Filter):
    """Leaves out what the server says of an answer that was cut on purpose.

    A body that the backend cut short must end cut short, and an ASGI server does that only for
    an exception, which it then logs with its traceback. So it does with an answer that outlasts
    the grace time of a stop. The record of the request tells both.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, CutShort | CancelledError)


def configure_logging(*, level: int = logging.WARNING) -> None:
    """Send structlog and the standard library's loggers to stderr in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = PatientHandler(sys.stderr)
    handler.addFilter(_CutsAreNoErrors())
    # Plain, because a rich traceback shows local variables, and those may hold keys.
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
