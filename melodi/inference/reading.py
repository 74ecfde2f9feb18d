"""Reads requests' bodies: small ones here, large ones in a process that holds up no traffic."""

import asyncio
import logging
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor

from melodi.inference.backends.base import RequestFacts
from melodi.inference.observer import dialect_of, read_request

logger = logging.getLogger(__name__)

HERE_BYTES = 256 * 1024
"""A body of this length takes about a millisecond to parse; one of 64 MiB up to a second, in
which no byte of another request would pass, in whatever thread."""
PATIENCE_SECONDS = 5


class RequestReader:
    """Opens its process with the first large body; closes it with the gateway."""

    def __init__(self) -> None:
        self._apart: ProcessPoolExecutor | None = None

    async def read(self, kind: str, path: str, body: bytes) -> RequestFacts:
        """What a request to an inference path asks for; nothing where that cannot be told."""
        if len(body) <= HERE_BYTES:
            return facts_of(kind, path, body)
        if self._apart is None:
            context = multiprocessing.get_context("spawn")
            self._apart = ProcessPoolExecutor(1, mp_context=context, initializer=_leave_ctrl_c)
        reading = asyncio.get_running_loop().run_in_executor(
            self._apart, facts_of, kind, path, body
        )
        try:
            return await asyncio.wait_for(reading, PATIENCE_SECONDS)
        except Exception as error:  # noqa: BLE001 - reading is a guest: traffic goes on without it
            logger.warning("a large request could not be read: %r; it has no model", error)
            self.close()
            return RequestFacts()

    def close(self) -> None:
        """End the process; the next large body begins another."""
        if self._apart is not None:
            self._apart.shutdown(wait=False, cancel_futures=True)
            self._apart = None


def facts_of(kind: str, path: str, body: bytes) -> RequestFacts:
    """What a request to this inference path asks for."""
    dialect = dialect_of(kind, path)
    return RequestFacts() if dialect is None else read_request(dialect, body)


def _leave_ctrl_c() -> None:
    """It goes to all processes of a terminal; the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
