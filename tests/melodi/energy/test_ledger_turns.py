"""Many bins and requests in one turn of the books are what each is alone."""

from dataclasses import replace
from typing import Any

import pytest
from ledger_books import GPU, MS, SECOND, START_NS, bins_of, facts, ledger_with, run_all, span

from melodi.energy.bins import Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, SILENCE_NS
from melodi.energy.rounds import close
from melodi.energy.total import RequestEnergy


def test_a_turn_closes_no_more_than_it_may() -> None:
    """So that nobody waits long; the next turn goes on."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    for bin_ in bins_of([1_000_000] * 25):
        ledger.add(bin_)
    now_ns = START_NS + 10 * SECOND
    turns = [ledger.advance(now_ns, wall_offset_ns=0, most=10) for _ in range(3)]
    assert [turn.more for turn in turns] == [True, True, False]
    measured = [sum(one.measured_joules for one in turn.minutes) for turn in turns]
    assert measured == [pytest.approx(10.0), pytest.approx(10.0), pytest.approx(5.0)]


def test_a_bin_that_was_booked_is_booked_so_again() -> None:
    """What a ledger closed goes through another one into the same minutes, by the same idle."""
    energies: list[int | None] = [10_000_000] * 50 + [30_000_000] * 20 + [None] + [9_000_000] * 50
    one = span("r", 5_000, 6_950)
    first = ledger_with()
    first.begin("r", [GPU], one.service.start_ns)
    for bin_ in bins_of(energies):
        first.add(bin_)
    first.end("r", one)
    later_ns = START_NS + MAX_OPEN_NS + SILENCE_NS
    closing = first.advance(later_ns, wall_offset_ns=59 * SECOND)
    assert len(closing.bins) == len(energies)
    again = ledger_with(idle_watts={GPU: 1.0})
    again.begin("r", [GPU], one.service.start_ns)
    for bin_ in closing.bins:
        again.add(bin_)
    again.end("r", one)
    repeated = again.advance(later_ns, wall_offset_ns=7 * SECOND)
    assert repeated.minutes == closing.minutes
    assert repeated.final == closing.final
    assert repeated.bins == closing.bins


def test_the_bins_of_a_busy_domain_close_in_few_rounds_and_others_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bins between which idle power may be learned wait for each other."""
    ledger = ledger_with(idle_watts={GPU: 100.0})
    ledger.begin("r", [GPU], START_NS)
    for bin_ in bins_of([20_000_000] * 17 + [10_000_000] * 108):
        ledger.add(bin_)
    ledger.end("r", span("r", 0, 1_700))
    rounds: list[int] = []

    def counted(turns: Any, *rest: Any, **more: Any) -> Any:
        rounds.append(len(turns))
        return close(turns, *rest, **more)

    monkeypatch.setattr("melodi.energy.ledger.close", counted)
    ledger.advance(START_NS + 20 * SECOND, wall_offset_ns=0)
    quiet, busy = 9, 125 - 9
    assert len(rounds) < quiet + busy / 4
    assert len(rounds) > quiet


def test_what_is_posted_of_many_is_what_is_posted_of_each() -> None:
    """Requests on one domain or two, in a load, or never served."""
    ledger = ledger_with(facts(), facts("gpu:b", max_watts=700.0), idle_watts={GPU: 50.0})
    load = Interval(START_NS - 300 * MS, START_NS)
    spans = [span("a", 0, 250, load=load), span("b", 100, 400), span("c", 200, 200)]
    spans.append(span("d", 0, 900, first_token_ns=START_NS + 120 * MS))
    for one, domains in zip(spans, ([GPU], [GPU, "gpu:b"], ["gpu:b"], []), strict=True):
        ledger.begin(one.request, domains, START_NS - 300 * MS)
        ledger.end(one.request, one)
    ledger.begin("runs", [GPU, "gpu:b"], START_NS + 150 * MS)
    for name in (GPU, "gpu:b"):
        for bin_ in bins_of([10_000_000, None, 20_000_000, 20_000_000], domain=name):
            ledger.add(bin_)
    final = ledger.advance(START_NS + SECOND, wall_offset_ns=0).final
    left = [one.request for one in spans if one.request not in final]
    assert left == ["a", "b", "c"]
    assert ledger.posted(left) == {name: ledger.posted([name])[name] for name in left}


def test_rows_are_given_out_again_and_nothing_of_the_last_request_is_left_in_them() -> None:
    """A thousand requests one after the other have a joule each, and no more memory than a few."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    final: dict[str, RequestEnergy] = {}
    for number, bin_ in enumerate(bins_of([1_000_000] * 1_000)):
        name = f"r{number}"
        ledger.begin(name, [GPU], bin_.start_ns)
        ledger.add(bin_)
        ledger.end(name, Span(name, Interval(bin_.start_ns, bin_.end_ns)))
        final |= ledger.advance(bin_.end_ns + SECOND, wall_offset_ns=0).final
    assert {round(one.energy_joules, 9) for one in final.values()} == {1.0}
    assert len(final) == 1_000


def test_a_model_that_loads_takes_a_share_of_its_own_beside_one_that_serves_many() -> None:
    """The device works for two: half for the load, half for the four of the other model."""
    load = Interval(START_NS, START_NS + 100 * MS)
    busy = [span(f"b{k}", 0, 100, model="small") for k in range(4)]
    books = run_all(
        ledger_with(idle_watts={GPU: 0.0}),
        bins_of([40_000_000]),
        [*busy, span("w", 100, 200, load=load, model="big")],
    )
    assert books.final["w"].load_joules == pytest.approx(20.0)
    assert [books.final[f"b{k}"].energy_joules for k in range(4)] == [pytest.approx(5.0)] * 4


def test_what_was_said_of_a_request_stays_with_it_and_does_not_pass_to_the_next() -> None:
    """One comes late and is measured in part; the next has its row, and nothing measures it."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    first, second = bins_of([1_000_000] * 2)
    ledger.add(first)
    ledger.advance(first.end_ns + SECOND, wall_offset_ns=0)
    ledger.begin("late", [GPU], first.start_ns)
    ledger.add(second)
    ledger.end("late", span("late", 0, 200))
    late = ledger.advance(second.end_ns + SECOND, wall_offset_ns=0).final["late"]
    assert {"late", "unmeasured"} <= set(late.quality_reasons)
    third_ns = second.end_ns + SECOND
    ledger.add(replace(second, start_ns=second.end_ns, end_ns=third_ns, total_uj=3_000_000))
    ledger.advance(third_ns + SECOND, wall_offset_ns=0)
    ledger.begin("next", [GPU], third_ns)
    ledger.end("next", Span("next", Interval(third_ns, third_ns + SECOND)))
    unheard = ledger.advance(third_ns + SECOND + SILENCE_NS, wall_offset_ns=0).final["next"]
    assert unheard.quality_reasons == ("unmeasured",)
