"""What a ledger learns of the power of a domain that idles."""

import pytest
from ledger_books import GPU, MS, SECOND, START_NS, Books, bins_of, ledger_with, span


def test_idle_is_learned_from_quiet_seconds_only() -> None:
    """10 s after the last request the warm idle is measured; before that nothing is learned."""
    ledger = ledger_with()
    ledger.begin("r", [GPU], START_NS)
    bins = bins_of([30_000_000] + [20_000_000] * 99 + [11_000_000] * 30)
    for bin_ in bins:
        ledger.add(bin_)
    ledger.end("r", span("r", 0, 100))
    ledger.advance(START_NS + 10 * SECOND, wall_offset_ns=0)
    assert ledger.idle_watts == {}
    ledger.advance(START_NS + 20 * SECOND, wall_offset_ns=0)
    assert ledger.idle_watts == {GPU: pytest.approx(110.0)}


def test_the_first_idle_seconds_of_all_are_known_as_idle() -> None:
    """Bins that nobody is in wait until idle is known, so that they are not unattributed."""
    ledger = ledger_with()
    for bin_ in bins_of([11_000_000] * 25):
        ledger.add(bin_)
    early = ledger.advance(START_NS + 1_500 * MS, wall_offset_ns=0)
    assert early.minutes == []
    books = Books.of([ledger.advance(START_NS + 2_700 * MS, wall_offset_ns=0)])
    assert books.sum("idle_joules") == pytest.approx(25 * 11.0)
    assert books.sum("unattributed_joules") == pytest.approx(0, abs=1e-9)


def test_a_restart_amid_foreign_work_does_not_raise_the_idle_power() -> None:
    """It takes quiet time since the start, and many quiet seconds, to learn a higher value."""
    ledger = ledger_with(idle_watts={GPU: 70.0})
    for bin_ in bins_of([50_000_000] * 200):
        ledger.add(bin_)
    ledger.advance(START_NS + 30 * SECOND, wall_offset_ns=0)
    assert ledger.idle_watts == {GPU: 70.0}


def test_a_lower_idle_power_is_learned_soon_and_a_higher_one_late() -> None:
    """A device that works for others looks like one that idles at a higher power."""
    ledger = ledger_with(idle_watts={GPU: 70.0})
    for bin_ in bins_of([9_000_000] * 300 + [9_000_000] * 200):
        ledger.add(bin_)
    ledger.advance(START_NS + 30 * SECOND, wall_offset_ns=0)
    assert ledger.idle_watts == {GPU: 70.0}
    ledger.advance(START_NS + 51 * SECOND, wall_offset_ns=0)
    assert ledger.idle_watts == {GPU: pytest.approx(90.0)}
