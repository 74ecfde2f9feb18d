"""Timelines on their way to the daemon."""

import asyncio
import pickle
from typing import Any, cast

import pytest
from timelines import timeline
from waiting import until

from melodi.gateway.apart import Asked, Passed, Told
from melodi.gateway.far import UNSENT_BYTES, FarBooks
from melodi.inference.timeline import RequestTimeline
from melodi.line import Line


class Notes:
    """A line that notes what is sent, as it comes out at its other end."""

    def __init__(self) -> None:
        self.unsent_bytes = 0
        self.said: list[Any] = []

    def send(self, message: object) -> None:
        self.said.append(pickle.loads(pickle.dumps(message)))

    @property
    def seen(self) -> list[tuple[bool, RequestTimeline]]:
        return [one for said in self.said if isinstance(said, Passed) for one in said.seen]


@pytest.fixture
def line() -> Notes:
    return Notes()


@pytest.fixture
def books(line: Notes) -> FarBooks:
    return FarBooks(cast("Line", line), patience_seconds=0.05)


async def test_what_is_seen_soon_after_each_other_goes_together(
    line: Notes, books: FarBooks
) -> None:
    """All that the timelines hold, in order; one that ended at once is one object."""
    one, other = timeline(id="one"), timeline(id="other")
    one.chunk_ns.extend([5, 7])
    books.begin(one)
    books.begin(other)
    books.end(one)
    assert line.said == []
    await until(lambda: line.said)
    assert len(line.said) == 1
    assert line.seen == [(False, one), (False, other), (True, one)]
    assert line.seen[0][1] is line.seen[2][1]
    assert line.said[0].used.cpu_seconds > 0
    books.end(other)
    books.hand_over()
    books.hand_over()
    assert len(line.said) == 2
    assert line.seen[-1] == (True, other)


async def test_a_daemon_that_takes_nothing_costs_records_and_no_memory(
    line: Notes, books: FarBooks, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests of that time are not said, whole; the log tells how many. Older ones still end."""
    old, lost, late = timeline(id="old"), timeline(id="lost"), timeline(id="late")
    books.begin(old)
    line.unsent_bytes = UNSENT_BYTES + 1
    for _ in range(3):
        books.begin(lost)
    books.end(old)
    line.unsent_bytes = 0
    books.begin(late)
    books.end(lost)
    books.hand_over()
    assert line.seen == [(False, old), (True, old), (False, late)]
    assert [one.getMessage() for one in caplog.records] == [
        "the daemon takes no more requests in: they pass unrecorded",
        "3 requests passed unrecorded",
    ]


async def test_a_question_comes_after_what_it_is_about(line: Notes, books: FarBooks) -> None:
    """Each gets its own answer, in whatever order they come."""
    one = timeline(id="one")
    books.begin(one)
    first = asyncio.ensure_future(books.energy("one"))
    second = asyncio.ensure_future(books.energy("two"))
    await asyncio.sleep(0)
    passed, *asked = line.said
    assert passed.seen == [(False, one)]
    assert asked == [Asked(0, "one"), Asked(1, "two")]
    books.told(Told(1, cast("Any", "of two")))
    books.told(Told(0, cast("Any", "of one")))
    assert (await first, await second) == ("of one", "of two")


async def test_a_daemon_that_does_not_answer_is_not_waited_for(books: FarBooks) -> None:
    """Nothing is known then, and what it says later goes nowhere."""
    assert await books.energy("one") is None
    books.told(Told(0, None))
