"""Messages between two processes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from waiting import until

from melodi.line import Line


class End:
    """One end of a line, and what came there."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.over = False
        self.line: Line

    def end(self) -> None:
        self.over = True


@asynccontextmanager
async def both() -> AsyncIterator[tuple[End, End]]:
    ends = End(), End()
    for end, one in zip(ends, socket.socketpair(), strict=True):
        end.line = await Line.on(one, end.heard.append, end.end)
    yield ends
    for end in ends:
        await end.line.close()


@pytest.mark.parametrize("length", [0, 1, 70_000, 3_000_000])
async def test_messages_come_whole_and_in_order(length: int) -> None:
    """Many in one piece, and one in many pieces; both ways."""
    async with both() as (here, there):
        said = [(number, b"x" * length) for number in range(20)]
        for one in said:
            here.line.send(one)
            there.line.send(one)
        await until(lambda: len(there.heard) == len(here.heard) == len(said))
        assert there.heard == here.heard == said


async def test_an_end_that_closes_is_heard_after_its_last_words() -> None:
    """They were sent before; what is said to it afterwards goes nowhere."""
    async with both() as (here, there):
        here.line.send("x" * 1_000_000)
        await here.line.close(patience_seconds=60)
        await until(lambda: there.over)
        assert len(there.heard) == 1
        there.line.send("anybody?")
        assert there.line.unsent_bytes == 0


async def test_what_the_other_end_does_not_take_is_counted_and_in_the_end_let_go() -> None:
    """Nobody waits for it longer than he is told to."""
    ours, theirs = socket.socketpair()
    line = await Line.on(ours, lambda _: None, lambda: None)
    line.send(b"x" * 10_000_000)
    assert line.unsent_bytes > 1_000_000
    async with asyncio.timeout(60):
        await line.close(patience_seconds=0.01)
    theirs.close()
