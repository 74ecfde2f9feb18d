"""What is written when: together, seldom under load, at once where somebody waits."""

from collections.abc import Iterable

from melodi.daemon.outbox import MINUTES_EVERY_NS, ROW_AFTER_NS, WRITE_EVERY_NS, Outbox
from melodi.energy.accounts import MinuteAccounts
from melodi.energy.ledger import Closing
from melodi.energy.total import RequestEnergy

MINUTE = MinuteAccounts(domain="package:0", minute=1, measured_joules=2.0)
LATE_NS = 10 * MINUTES_EVERY_NS


def closing(*, touched: Iterable[str] = (), final: Iterable[str] = ()) -> Closing:
    """A turn that closed some of a minute."""
    energies = {name: RequestEnergy() for name in final}
    return Closing(minutes=[MINUTE], touched=set(touched), final=energies)


def test_what_turns_closed_is_written_together() -> None:
    """A request that was touched and then became final has one row; its minutes come with it."""
    box = Outbox(0)
    box.end("a", 0)
    box.close(closing(touched={"a"}))
    assert box.changed(1) == {"a"}
    box.close(closing(final=["a"]))
    assert box.changed(1) == set()
    assert list(box.final) == ["a"]
    (minute,) = box.take(set(), 1)
    assert minute.measured_joules == 2 * MINUTE.measured_joules
    assert not box.final
    assert box.changed(LATE_NS) == set()


def test_one_that_runs_has_no_row() -> None:
    """Joules that a bin gave it although it runs on come with its first row."""
    box = Outbox(0)
    box.close(closing(touched={"a"}))
    assert box.changed(LATE_NS) == set()
    box.end("a", LATE_NS)
    assert box.changed(LATE_NS) == {"a"}


def test_one_that_waits_long_for_its_end_has_a_row() -> None:
    """Although no bin gave it anything; once it has been written it is not written again."""
    box = Outbox(0)
    box.end("a", WRITE_EVERY_NS)
    soon_ns = WRITE_EVERY_NS + ROW_AFTER_NS - 1
    assert not box.is_due(soon_ns, busy=False)
    assert box.is_due(soon_ns + 1, busy=False)
    assert box.changed(soon_ns + 1) == {"a"}
    box.take({"a"}, soon_ns + 1)
    assert box.changed(LATE_NS) == set()
    assert not box.is_due(LATE_NS, busy=False)


def test_nothing_is_written_twice_within_a_while() -> None:
    """Whatever becomes final meanwhile waits for the next writing."""
    box = Outbox(0)
    box.end("a", 0)
    box.close(closing(final=["a"]))
    assert not box.is_due(WRITE_EVERY_NS - 1, busy=False)
    assert box.is_due(WRITE_EVERY_NS, busy=True)
    box.take(set(), WRITE_EVERY_NS)
    box.end("b", WRITE_EVERY_NS)
    box.close(closing(final=["b"]))
    assert not box.is_due(2 * WRITE_EVERY_NS - 1, busy=False)
    assert box.is_due(2 * WRITE_EVERY_NS, busy=False)


def test_accounts_alone_are_seldom_written() -> None:
    """An idle daemon leaves the disk alone, and a writer that is behind has them later."""
    box = Outbox(0)
    box.close(closing())
    assert not box.is_due(MINUTES_EVERY_NS - 1, busy=False)
    assert box.is_due(MINUTES_EVERY_NS, busy=False)
    assert not box.is_due(LATE_NS, busy=True)
