"""Says in the log when the daemon ceases to do its work, and when it does it again."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

LOOK_SECONDS = 1.0

log = structlog.get_logger(__name__)


async def keep_vigil(faults: Callable[[], Sequence[str]]) -> None:
    """Look again and again, until cancelled; what stays wrong is said once."""
    known: set[str] = set()
    while True:
        now = set(faults())
        for fault in sorted(now - known):
            log.warning("not_ready", fault=fault)
        if known and not now:
            log.warning("ready_again")
        known = now
        await asyncio.sleep(LOOK_SECONDS)
