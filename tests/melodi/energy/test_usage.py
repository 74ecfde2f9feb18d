"""Bins take the shares of the time they lie in, wait for them a little, and say where from."""

import pytest

from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, Closing, Ledger
from melodi.energy.policies import policies_for
from melodi.energy.tally import DomainFacts
from melodi.energy.usage import PATIENCE_NS, Usage, UsageLog

SECOND = 1_000_000_000
CPU = "package:0"


def bin_at(start_s: float, end_s: float, joules: float = 10.0, total: float = 10.0) -> Bin:
    return Bin(
        domain=CPU,
        start_ns=round(start_s * SECOND),
        end_ns=round(end_s * SECOND),
        energy_uj=round(joules * 1e6),
        total_uj=round(total * 1e6),
    )


def usage(start_s: float, end_s: float, reason: str | None = None, **shares: float) -> Usage:
    return Usage(
        domain=CPU,
        start_ns=round(start_s * SECOND),
        end_ns=round(end_s * SECOND),
        shares=shares,
        reason=reason,
    )


def ledger() -> Ledger:
    facts = DomainFacts(
        name=CPU,
        kind="cpu",
        scope="package",
        source="test",
        origin="sensor",
        refresh_ns=SECOND // 10,
    )
    return Ledger([facts], policies=lambda: policies_for("auto"), idle_watts={CPU: 0.0})


def served(ledger: Ledger, name: str, start_s: float, end_s: float, backend: str) -> None:
    start_ns, end_ns = round(start_s * SECOND), round(end_s * SECOND)
    ledger.begin(name, [CPU], start_ns)
    ledger.end(name, Span(name, Interval(start_ns, end_ns), backend=backend))


def close(ledger: Ledger, at_s: float = 1.0) -> Closing:
    return ledger.advance(round(at_s * SECOND) + MAX_OPEN_NS, wall_offset_ns=0)


def test_a_bin_takes_the_shares_of_its_time_weighed() -> None:
    """A quarter of the bin lies in the first interval, the rest in the second."""
    log = UsageLog()
    log.add(usage(0.0, 1.0, ollama=1.0))
    log.add(usage(1.0, 2.0, "foreign_estimated", ollama=0.2, vllm=0.4))
    shares, reasons = log.during(bin_at(0.75, 1.75))
    assert shares == {"ollama": pytest.approx(0.4), "vllm": pytest.approx(0.3)}
    assert reasons == {"foreign_estimated"}


def test_a_bin_waits_for_usage_only_where_there_was_some_lately_and_not_for_long() -> None:
    """Three seconds at most; a domain that never had any, or long ago, does not wait."""
    log, bin_ = UsageLog(), bin_at(1.0, 1.1)
    assert not log.is_due(bin_, bin_.end_ns)
    log.add(usage(0.0, 1.0, ollama=1.0))
    assert log.is_due(bin_, bin_.end_ns)
    assert not log.is_due(bin_, bin_.end_ns + PATIENCE_NS)
    assert not log.is_due(bin_at(20.0, 20.1), 20 * SECOND)
    log.add(usage(1.0, 2.0, ollama=1.0))
    assert not log.is_due(bin_, bin_.end_ns)


def test_foreign_work_is_not_charged_and_the_record_says_it_was_estimated() -> None:
    """Of 10 J a backend had 30 %: 3 J are its request's, 7 J are foreign."""
    books = ledger()
    served(books, "r", 0.0, 1.0, "ollama")
    books.use(usage(0.0, 1.0, "foreign_estimated", ollama=0.3))
    books.add(bin_at(0.0, 1.0))
    closing = close(books)
    assert closing.final["r"].active_joules == pytest.approx(3.0)
    assert closing.final["r"].quality_reasons == ("foreign_estimated",)
    assert closing.minutes[0].foreign_joules == pytest.approx(7.0)
    assert closing.minutes[0].residual_joules == pytest.approx(0.0, abs=1e-12)


def test_exclusive_bounds_do_not_trust_the_shares() -> None:
    """Whatever the others had is an estimate: between nothing and all may be the request's."""
    books = ledger()
    served(books, "r", 0.0, 1.0, "ollama")
    books.use(usage(0.0, 1.0, ollama=0.3))
    books.add(bin_at(0.0, 1.0))
    energy = close(books).final["r"]
    assert energy.exclusive_low_joules == 0.0
    assert energy.exclusive_high_joules == pytest.approx(10.0)
    assert energy.low_joules < 3.0 < energy.high_joules


def test_without_usage_all_is_ours_and_the_record_says_that_this_is_not_known() -> None:
    """Nothing is known of others on the domain."""
    books = ledger()
    served(books, "r", 0.0, 1.0, "ollama")
    books.add(bin_at(0.0, 1.0))
    energy = close(books).final["r"]
    assert energy.active_joules == pytest.approx(10.0)
    assert energy.quality_reasons == ("foreign_unknown",)


def test_two_backends_on_one_domain_are_told_apart_by_their_work_not_by_their_requests() -> None:
    """Three requests of one, one of the other; the other's processes did nine tenths."""
    books = ledger()
    for k in range(3):
        served(books, f"a{k}", 0.0, 1.0, "ollama")
    served(books, "b", 0.0, 1.0, "vllm")
    books.use(usage(0.0, 1.0, ollama=0.1, vllm=0.9))
    books.add(bin_at(0.0, 1.0))
    final = close(books).final
    assert final["b"].active_joules == pytest.approx(9.0)
    assert final["a0"].active_joules == pytest.approx(1.0 / 3)


def test_usage_of_a_domain_without_books_is_passed_by() -> None:
    """As for a device that is not there any more; the books of the others are as without it."""
    gone = Usage(domain="gpu:gone", start_ns=0, end_ns=SECOND, shares={"ollama": 1.0}, reason=None)
    told = []
    for usages in ([], [gone]):
        books = ledger()
        served(books, "r", 0.0, 1.0, "ollama")
        for one in [usage(0.0, 1.0, ollama=0.5), *usages]:
            books.use(one)
        books.add(bin_at(0.0, 1.0))
        told.append(close(books))
    assert told[0] == told[1]
    assert told[1].final["r"].active_joules == pytest.approx(5.0)


def test_the_books_close_a_bin_when_its_usage_is_there() -> None:
    """The settle time is over, but the next usage is due: the bin waits for it."""
    books = ledger()
    books.use(usage(0.0, 1.0, ollama=1.0))
    served(books, "r", 1.0, 1.5, "ollama")
    books.add(bin_at(1.0, 1.5))
    now_ns = 2 * SECOND
    assert books.advance(now_ns, wall_offset_ns=0).minutes == []
    books.use(usage(1.0, 2.0, ollama=0.5))
    closing = books.advance(now_ns, wall_offset_ns=0)
    assert closing.final["r"].active_joules == pytest.approx(5.0)
    assert closing.minutes[0].foreign_joules == pytest.approx(5.0)
