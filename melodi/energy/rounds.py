"""Closes a round: the oldest bins of all domains at once, as columns of all their guests."""

from collections.abc import Callable, Sequence

import numpy as np

from melodi.clock import NS_PER_SECOND
from melodi.energy.accounts import MinuteAccounts
from melodi.energy.attribution import settle
from melodi.energy.bins import UJ_PER_JOULE, Bin
from melodi.energy.columns import Rows
from melodi.energy.domain_books import Turn
from melodi.energy.roster import END, LOAD_END, Guests, Roster
from melodi.energy.settlement import LOAD, Posting, Settlement
from melodi.energy.tallies import Tallies

TAIL_NS = 5 * NS_PER_SECOND

Book = Callable[[Bin, float | None], MinuteAccounts]


def close(turns: Sequence[Turn], roster: Roster, tallies: Tallies, *, book: Book) -> Rows:
    """Post bins, those of each domain in order; gives the rows of the requests that were in them.

    It is the same as one after the other. `book` gives the account of a bin that was split by
    some idle power.
    """
    measured = [one for one in turns if one.bin.energy_uj is not None]
    rows = [_divide(measured, roster, tallies, book)] if measured else []
    rows += [_lose(one, roster, tallies, book) for one in turns if one.bin.energy_uj is None]
    roster.release(row for one in turns for row in one.left.tolist())
    return np.concatenate(rows)


def _divide(turns: Sequence[Turn], roster: Roster, tallies: Tallies, book: Book) -> Rows:
    """Post the joules of measured bins."""
    guests = roster.touching([(one.bin, one.present) for one in turns])
    cases = [one.books.case(one.bin) for one in turns]
    settlement = settle(cases, guests, kinds=tallies.kinds)
    if len(guests):
        _let_go(settlement, guests, roster)
        cells = _cells(turns, guests, tallies)
        layers = np.array([one.layer for one in turns])[guests.bin]
        tallies.add(cells, layers, guests, cases, settlement)
        _say_who_runs(cells, guests, roster, tallies)
    for turn, case, last_ns, posting in zip(
        turns, cases, _last(guests, len(turns)), settlement.postings, strict=True
    ):
        account = book(turn.bin, case.setting.idle_watts)
        account.measured_joules += turn.measured_uj / UJ_PER_JOULE
        idle_ns = turn.books.pass_by(turn, last_ns)
        _enter(account, posting, tail=idle_ns is not None and idle_ns < TAIL_NS)
    return guests.rows


def _lose(turn: Turn, roster: Roster, tallies: Tallies, book: Book) -> Rows:
    """Pass over a bin that nobody measured: it has seconds, and no joules."""
    guests = roster.touching([(turn.bin, turn.present)])
    if len(guests):
        cells = _cells([turn], guests, tallies)
        tallies.lose(cells, guests, turn.bin.reason or "unmeasured")
        _say_who_runs(cells, guests, roster, tallies)
    account = book(turn.bin, turn.books.idle.watts)
    account.measured_joules += turn.measured_uj / UJ_PER_JOULE
    account.unmeasured_seconds += turn.bin.length_ns / NS_PER_SECOND
    turn.books.pass_by(turn, _last(guests, 1)[0])
    return guests.rows


def _cells(turns: Sequence[Turn], guests: Guests, tallies: Tallies) -> Rows:
    domains = np.array([one.books.place for one in turns])
    return tallies.cells(domains[guests.bin], guests.rows)


def _let_go(settlement: Settlement, guests: Guests, roster: Roster) -> None:
    """What those would get whose records are out is nobody's."""
    gone = roster.gone[guests.rows]
    if not gone.any():
        return
    for one in gone.nonzero()[0].tolist():
        posting = settlement.postings[guests.bin.item(one)]
        active, idle_share, load = settlement.sums[: LOAD + 1, one].tolist()
        posting.active -= active
        posting.idle_share -= idle_share
        posting.load -= load
        posting.unattributed += active + idle_share + load
    settlement.sums[:, gone] = 0.0


def _say_who_runs(cells: Rows, guests: Guests, roster: Roster, tallies: Tallies) -> None:
    """A bin that had to close on somebody who runs may be wrong about all of him."""
    ended = roster.ended[guests.rows]
    if not ended.all():
        tallies.explain(cells[~ended], "forced_close")


def _last(guests: Guests, bins: int) -> list[float | None]:
    """Until when anybody was served in each bin, in ns from its start; None: nobody was in it."""
    last: list[float | None] = [None] * bins
    if not len(guests):
        return last
    ends = guests.times[END]
    if guests.waiting is not None:
        ends = np.maximum(ends, guests.times[LOAD_END])
    ends = np.minimum(ends, guests.length)
    starts = guests.tables.starts
    for number, end in zip(
        guests.bin[starts].tolist(), np.maximum.reduceat(ends, starts).tolist(), strict=True
    ):
        last[number] = max(end, last[number] or end)
    return last


def _enter(account: MinuteAccounts, posting: Posting, *, tail: bool) -> None:
    account.active_joules += posting.active
    account.idle_share_joules += posting.idle_share
    account.load_joules += posting.load
    account.idle_joules += posting.idle
    account.foreign_joules += posting.foreign
    account.unattributed_joules += posting.unattributed
    if tail:
        account.tail_joules += posting.unattributed
