"""The books close under any mix of bins and requests."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_books import GPU, MS, START_NS, Books, bins_of, facts, ledger_with, run_all, span

from melodi.energy.bins import Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, Ledger

ENERGIES = st.lists(st.one_of(st.none(), st.integers(0, 70_000_000)), min_size=1, max_size=20)


@st.composite
def mixes(draw: st.DrawFn) -> tuple[list[int | None], list[Span]]:
    energies = draw(ENERGIES)
    spans = []
    for k in range(draw(st.integers(0, 6))):
        start_ms = draw(st.integers(-300, 2_200))
        end_ms = start_ms + draw(st.integers(0, 2_000))
        load_ms = draw(st.one_of(st.none(), st.integers(1, 900)))
        load = load_ms and Interval(START_NS + (start_ms - load_ms) * MS, START_NS + start_ms * MS)
        spans.append(span(f"r{k}", start_ms, end_ms, load=load or None))
    return energies, spans


@given(mixes(), st.one_of(st.none(), st.floats(0, 400)))
def test_every_measured_joule_is_in_an_account_and_the_records_hold_what_the_accounts_say(
    mix: tuple[list[int | None], list[Span]], idle_watts: float | None
) -> None:
    """Conservation: counters = accounts, and the accounts of requests = the sum of the records."""
    energies, spans = mix
    ledger = ledger_with(idle_watts=None if idle_watts is None else {GPU: idle_watts})
    books = run_all(ledger, bins_of(energies), spans)
    measured = sum(one or 0 for one in energies) / 1e6
    tolerance = 1e-9 * max(1.0, measured)
    assert books.sum("measured_joules") == pytest.approx(measured, abs=tolerance)
    assert sum(one.residual_joules for one in books.minutes) == pytest.approx(0, abs=tolerance)
    assert books.sum("unmeasured_seconds") == pytest.approx(0.1 * energies.count(None))
    assert set(books.final) == {one.request for one in spans}
    in_records = math.fsum(
        value
        for energy in books.final.values()
        for value in (energy.energy_joules, energy.load_joules)
        if value is not None
    )
    in_accounts = sum(
        books.sum(name) for name in ("active_joules", "idle_share_joules", "load_joules")
    )
    # A request without any covered service has unknown energy; it never received any either.
    assert in_records == pytest.approx(in_accounts, abs=tolerance)


@given(mixes(), st.floats(0, 400))
def test_bounds_hold_the_point_and_the_exclusive_bounds_hold_the_active_energy(
    mix: tuple[list[int | None], list[Span]], idle_watts: float
) -> None:
    """low <= energy <= high, exclusive_low <= active <= exclusive_high, for every record."""
    energies, spans = mix
    books = run_all(ledger_with(idle_watts={GPU: idle_watts}), bins_of(energies), spans)
    for energy in books.final.values():
        if energy.energy_joules is None:
            continue
        assert energy.low_joules <= energy.energy_joules + 1e-9
        assert energy.exclusive_low_joules <= energy.active_joules + 1e-9
        if "unmeasured" in energy.quality_reasons:
            assert energy.high_joules is None
            assert energy.exclusive_high_joules is None
            continue
        assert energy.energy_joules <= energy.high_joules + 1e-9
        assert energy.active_joules <= energy.exclusive_high_joules + 1e-9


@given(mixes(), st.integers(1, 7))
def test_when_the_books_are_turned_does_not_change_what_they_say(
    mix: tuple[list[int | None], list[Span]], turns: int
) -> None:
    """All at the end or bin by bin: the same records and the same accounts."""
    energies, spans = mix
    at_once = run_all(ledger_with(idle_watts={GPU: 100.0}), bins_of(energies), spans)
    ledger, closings = ledger_with(idle_watts={GPU: 100.0}), []
    for one in spans:
        ledger.begin(one.request, [GPU], min(part.start_ns for part in one.parts))
    waiting = sorted(spans, key=lambda one: one.service.end_ns)
    for number, bin_ in enumerate(bins_of(energies)):
        ledger.add(bin_)
        while waiting and waiting[0].service.end_ns <= bin_.end_ns:
            done = waiting.pop(0)
            ledger.end(done.request, done)
        if number % turns == 0:
            closings.append(ledger.advance(bin_.end_ns, wall_offset_ns=0))
    for one in waiting:
        ledger.end(one.request, one)
    closings.append(ledger.advance(START_NS + 2 * MAX_OPEN_NS, wall_offset_ns=0))
    slowly = Books.of(closings)
    assert slowly.final == at_once.final
    for account in ("measured_joules", "active_joules", "idle_joules", "unattributed_joules"):
        assert slowly.sum(account) == pytest.approx(at_once.sum(account), abs=1e-9)


@given(mixes(), st.lists(st.integers(0, 99), min_size=2, max_size=3), st.floats(0, 400))
def test_bins_closed_together_say_what_they_say_one_at_a_time(
    mix: tuple[list[int | None], list[Span]], phases: list[int], idle_watts: float
) -> None:
    """To the last digit, for domains whose bins overlap: the same records and accounts."""
    energies, spans = mix
    names = [f"gpu:{k}" for k in range(len(phases))]

    def told() -> Ledger:
        ledger = ledger_with(*map(facts, names), idle_watts=dict.fromkeys(names, idle_watts))
        for one in spans:
            ledger.begin(one.request, names, min(part.start_ns for part in one.parts))
        for name, phase_ms in zip(names, phases, strict=True):
            for bin_ in bins_of(energies, domain=name):
                shift_ns = phase_ms * MS
                ledger.add(
                    replace(
                        bin_,
                        start_ns=bin_.start_ns + shift_ns,
                        end_ns=bin_.end_ns + shift_ns,
                        half_width_ns=10 * MS,
                    )
                )
        for one in spans:
            ledger.end(one.request, one)
        return ledger

    later_ns = START_NS + 2 * MAX_OPEN_NS
    together = Books.of([told().advance(later_ns, wall_offset_ns=0)])
    ledger, closings = told(), []
    while not closings or closings[-1].more:
        closings.append(ledger.advance(later_ns, wall_offset_ns=0, most=1))
    one_by_one = Books.of(closings)
    assert len(closings) == len(names) * len(energies)
    assert together.final == one_by_one.final
    for name in names:
        for account in ("measured_joules", "active_joules", "load_joules", "unattributed_joules"):
            assert together.sum(account, name) == pytest.approx(one_by_one.sum(account, name))
