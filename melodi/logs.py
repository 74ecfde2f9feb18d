"""One log on stderr for all of the process: a line an event, warnings and worse by default."""

import logging
import sys
from asyncio import CancelledError

import structlog

from melodi.errors import CutShort


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
    handler = logging.StreamHandler(sys.stderr)
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
