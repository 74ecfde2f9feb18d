"""Says to a gateway's clients, while they wait, what their requests cost."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from melodi.daemon.bookkeeper import Bookkeeper
from melodi.energy.record import EnergyRecord

PREVIEW_SECONDS = 0.5
"""Books that take longer to say how a record stands are stuck, and nobody waits for them."""


class Telling:
    """Asks the books; `close` it."""

    def __init__(self, books: Bookkeeper) -> None:
        self._books = books
        # A thread of its own: books that are stuck must not use up those that resolve names.
        self._thread = ThreadPoolExecutor(1, "melodi-energy")

    @property
    def patience_seconds(self) -> float:
        """How long an answer may take at most."""
        return self._books.settle_seconds + PREVIEW_SECONDS

    async def energy(self, request_id: str) -> EnergyRecord | None:
        """The record, final or as it stands; None where it is unknown, TimeoutError if stuck."""
        final = await self._books.wait_final(request_id, self._books.settle_seconds)
        if final is not None:
            return final
        asked = asyncio.get_running_loop().run_in_executor(
            self._thread, self._books.preview, request_id
        )
        return await asyncio.wait_for(asked, PREVIEW_SECONDS)

    def close(self) -> None:
        """Wait for nobody."""
        self._thread.shutdown(wait=False, cancel_futures=True)
