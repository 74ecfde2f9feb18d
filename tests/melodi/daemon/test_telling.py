"""What clients are told that wait for it."""

import asyncio
import threading
from typing import Any, cast

import pytest

from melodi.daemon.bookkeeper import Bookkeeper
from melodi.daemon.telling import Telling


class Books:
    """Knows one record as it stands, and perhaps its final one."""

    settle_seconds = 0.01

    def __init__(self, final: object = None) -> None:
        self.final = final
        self.goes_on = threading.Event()
        self.goes_on.set()

    async def wait_final(self, _: str, seconds: float) -> object:
        await asyncio.sleep(seconds)
        return self.final

    def preview(self, request_id: str) -> object:
        self.goes_on.wait(60)
        return f"{request_id} as it stands"


def telling(books: Books) -> Telling:
    return Telling(cast("Bookkeeper", cast("Any", books)))


async def test_a_final_record_beats_one_that_may_change() -> None:
    """The second is told where the first does not come in the settle time."""
    assert await telling(Books("final")).energy("a") == "final"
    assert await telling(Books()).energy("a") == "a as it stands"


async def test_books_that_are_stuck_are_waited_for_no_longer_than_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several ask while not one of them can be answered."""
    monkeypatch.setattr("melodi.daemon.telling.PREVIEW_SECONDS", 0.05)
    books = Books()
    books.goes_on.clear()
    one = telling(books)
    answers = await asyncio.gather(*(one.energy("a") for _ in range(5)), return_exceptions=True)
    assert all(isinstance(answer, TimeoutError) for answer in answers)
    one.close()
    books.goes_on.set()
