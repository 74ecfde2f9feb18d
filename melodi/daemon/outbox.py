"""What the books have closed and not written yet: it goes out at once where somebody waits."""

from collections.abc import Set
from itertools import takewhile

from melodi.clock import NS_PER_SECOND
from melodi.energy.accounts import MinuteAccounts, MinuteSums
from melodi.energy.ledger import Closing
from melodi.energy.total import RequestEnergy

WRITE_EVERY_NS = NS_PER_SECOND
"""Under load, so that most requests are written once, as final."""
MINUTES_EVERY_NS = 2 * NS_PER_SECOND
"""Accounts without a record wait this long for one, so that an idle daemon seldom writes."""
ROW_AFTER_NS = NS_PER_SECOND
"""A request that ended so long ago has a row from the next writing on, final or not."""


class Outbox:
    """Gathers what turns of the ledger closed; all of it is written together.

    So the books in the database add up at every commit: a minute's joules never come without
    the rows of the ended requests that got them. One thread owns it.
    """

    def __init__(self, now_ns: int) -> None:
        self.final: dict[str, RequestEnergy] = {}
        """Requests that became final."""
        self._touched: set[str] = set()
        self._minutes = MinuteSums()
        self._ended: set[str] = set()
        self._rowless: dict[str, int] = {}
        self._written_ns = now_ns

    def end(self, request: str, end_ns: int) -> None:
        """A request is over."""
        self._ended.add(request)
        self._rowless[request] = end_ns

    def close(self, closing: Closing) -> None:
        """The ledger closed this."""
        self._minutes.add(closing.minutes)
        self._touched |= closing.touched
        self.final |= closing.final

    def is_due(self, now_ns: int, *, busy: bool) -> bool:
        """Whether to write now; accounts alone can wait while the writer is `busy`."""
        waited_ns = now_ns - self._written_ns
        if waited_ns < WRITE_EVERY_NS:
            return False
        if self.final or self.changed(now_ns):
            return True
        return bool(self._minutes) and waited_ns >= MINUTES_EVERY_NS and not busy

    @property
    def is_all_final(self) -> bool:
        """Whether something is final, and nothing that has ended is not."""
        return bool(self.final) and self._ended <= self.final.keys()

    def changed(self, now_ns: int) -> Set[str]:
        """The ended requests that are not final and need a row, or another one."""
        return (self._touched & self._ended | self._without_row(now_ns)) - self.final.keys()

    def take(self, written: Set[str], now_ns: int) -> tuple[MinuteAccounts, ...]:
        """The accounts; everything else is done with, rows of the `written` requests too."""
        self._written_ns = now_ns
        self._ended.difference_update(self.final)
        for request in (*self.final, *written):
            self._rowless.pop(request, None)
        self._touched.clear()
        self.final.clear()
        return self._minutes.take()

    def _without_row(self, now_ns: int) -> set[str]:
        """Those that have been without a row for long enough, the oldest first."""
        until_ns = now_ns - ROW_AFTER_NS
        return set(takewhile(lambda name: self._rowless[name] <= until_ns, self._rowless))
