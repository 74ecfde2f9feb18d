"""What runs in the process that passes traffic on: `python -m melodi.gateway.child FD`."""

import asyncio
import os
import socket
import sys

from melodi.child import leave_signals_to_parent
from melodi.clock import SystemClock
from melodi.gateway.apart import Ready, Stop, Task, Told
from melodi.gateway.app import create_gateway
from melodi.gateway.far import FarBooks
from melodi.line import Line
from melodi.logs import configure_logging
from melodi.memory import give_back
from melodi.serving import App, run, serving, spare_what_stays

PARENT_SECONDS = 1.0
LAST_WORDS_SECONDS = 5.0
GIVE_BACK_EVERY = 60
"""Looks after the parent."""


def main() -> None:
    """Pass traffic on as the daemon says, until it says stop or has died."""
    leave_signals_to_parent()
    configure_logging()
    run(_pass_on(socket.socket(fileno=int(sys.argv[1])), os.getppid()))


async def _pass_on(end: socket.socket, daemon: int) -> None:
    loop = asyncio.get_running_loop()
    task: asyncio.Future[Task] = loop.create_future()
    over = asyncio.Event()
    books: FarBooks | None = None

    def hear(message: Task | Told | Stop) -> None:
        if isinstance(message, Task):
            task.set_result(message)
        elif isinstance(message, Told) and books is not None:
            books.told(message)
        elif isinstance(message, Stop):
            over.set()

    line = await Line.on(end, hear, over.set)
    given = await task
    clock = SystemClock()
    books = FarBooks(line, patience_seconds=given.patience_seconds)
    apps: list[tuple[App, socket.socket]] = [
        (create_gateway(backend, books, clock, books=books), socket.socket(fileno=listener))
        for backend, listener in given.gateways
    ]
    async with serving(apps):
        for _, listener in apps:
            # Those that serve are copies, which close first of all: then the address is free.
            listener.close()
        spare_what_stays()
        line.send(Ready())
        await _end_of(daemon, over)
    books.hand_over()
    await line.close(patience_seconds=LAST_WORDS_SECONDS)


async def _end_of(daemon: int, over: asyncio.Event) -> None:
    """Until the daemon says so or has died: another process may hold its end of the line open."""
    looked = 0
    while os.getppid() == daemon and not over.is_set():
        try:
            await asyncio.wait_for(over.wait(), PARENT_SECONDS)
        except TimeoutError:
            looked += 1
            if looked % GIVE_BACK_EVERY == 0:
                give_back()


if __name__ == "__main__":
    main()
