"""Waiting for what another thread or process brings about, as long as a slow machine may take."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_SECONDS = 120.0
"""Only a defect takes longer; nothing that a test asserts may hang on this number."""


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about in {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.005)


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds, while the event loop goes on."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
