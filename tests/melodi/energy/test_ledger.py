"""Bins wait for those in them, and divide what was measured among them."""

from functools import partial

import pytest
from ledger_books import (
    GPU,
    MS,
    SECOND,
    START_NS,
    Books,
    bins_of,
    facts,
    ledger_with,
    run_all,
    span,
)

from melodi.energy.bins import Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, SILENCE_NS, Ledger
from melodi.energy.policies import policies_for
from melodi.energy.record import Quality
from melodi.energy.work import Work


def test_a_request_alone_gets_all_dynamic_energy_and_idle_for_its_time_only() -> None:
    """One request over half of each edge bin: active is all, idle share goes by its time."""
    books = run_all(
        ledger_with(idle_watts={GPU: 100.0}), bins_of([30_000_000] * 4), [span("r", 50, 350)]
    )
    energy = books.final["r"]
    assert energy.active_joules == pytest.approx(4 * 20.0)
    assert energy.idle_share_joules == pytest.approx(100.0 * 0.3)
    assert books.sum("idle_joules") == pytest.approx(100.0 * 0.1)
    assert books.sum("unattributed_joules") == 0


def test_two_at_once_share_by_time() -> None:
    """The policy `time`: twice the time in a bin, twice the active energy."""
    spans = [span("a", 0, 100), span("b", 50, 100)]
    books = run_all(ledger_with(idle_watts={GPU: 0.0}), bins_of([30_000_000]), spans)
    assert books.final["a"].active_joules == pytest.approx(20.0)
    assert books.final["b"].active_joules == pytest.approx(10.0)
    assert books.final["a"].concurrency_mean == pytest.approx(1.5)


def test_a_model_load_has_an_account_of_its_own() -> None:
    """The first prompt does not pay for the load that it waited for."""
    one = span("r", 100, 200, load=Interval(START_NS, START_NS + 100 * MS))
    books = run_all(ledger_with(idle_watts={GPU: 100.0}), bins_of([50_000_000, 20_000_000]), [one])
    assert books.final["r"].load_joules == pytest.approx(50.0)
    assert books.final["r"].energy_joules == pytest.approx(20.0)
    assert books.sum("load_joules") == pytest.approx(50.0)


def test_unknown_idle_gives_energy_without_a_split() -> None:
    """Active and idle share are unknown, not zero, and the reason says why."""
    energy = run_all(ledger_with(), bins_of([30_000_000]), [span("r", 0, 100)]).final["r"]
    assert energy.energy_joules == pytest.approx(30.0)
    assert energy.active_joules is None
    assert energy.idle_share_joules is None
    assert "idle_unknown" in energy.quality_reasons


def test_the_tail_after_work_is_unattributed_and_shown() -> None:
    """Power above idle within 5 s of the last request is nobody's; later it is no tail."""
    energies = [30_000_000] + [20_000_000] * 60
    books = run_all(ledger_with(idle_watts={GPU: 100.0}), bins_of(energies), [span("r", 0, 100)])
    assert books.sum("unattributed_joules") == pytest.approx(60 * 10.0)
    assert books.sum("tail_joules") == pytest.approx(50 * 10.0)


def test_a_bin_stays_open_until_everybody_in_it_has_ended() -> None:
    """Shares depend on the others: a bin with a running request in it does not close."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    ledger.begin("short", [GPU], START_NS)
    ledger.begin("long", [GPU], START_NS)
    for bin_ in bins_of([10_000_000] * 3):
        ledger.add(bin_)
    ledger.end("short", span("short", 0, 100))
    later_ns = START_NS + 5 * SECOND
    closing = ledger.advance(later_ns, wall_offset_ns=0)
    assert closing.minutes == []
    assert closing.final == {}
    assert ledger.preview("short", later_ns).energy_joules == pytest.approx(5.0)
    ledger.end("long", span("long", 0, 300))
    final = ledger.advance(later_ns, wall_offset_ns=0).final
    assert set(final) == {"short", "long"}
    assert final["short"].energy_joules == pytest.approx(5.0)
    assert final["long"].energy_joules == pytest.approx(25.0)


def test_a_bin_closes_after_ten_minutes_whoever_runs() -> None:
    """One endless request does not keep the books open for ever."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    ledger.begin("endless", [GPU], START_NS)
    ledger.add(bins_of([10_000_000])[0])
    early = ledger.advance(START_NS + MAX_OPEN_NS - 1, wall_offset_ns=0)
    late = ledger.advance(START_NS + 100 * MS + MAX_OPEN_NS, wall_offset_ns=0)
    assert early.minutes == []
    assert late.minutes[0].active_joules == pytest.approx(10.0)


def test_a_silent_sensor_makes_a_gap_not_a_zero() -> None:
    """A request whose sensor died has unknown energy and becomes final all the same."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    ledger.begin("r", [GPU], START_NS)
    ledger.end("r", span("r", 0, 500))
    end_ns = START_NS + 500 * MS
    assert ledger.advance(end_ns + SILENCE_NS - 1, wall_offset_ns=0).final == {}
    energy = ledger.advance(end_ns + SILENCE_NS, wall_offset_ns=0).final["r"]
    assert energy.energy_joules is None
    assert energy.quality is Quality.NONE
    assert energy.quality_reasons == ("unmeasured",)


@pytest.mark.parametrize(
    ("length_ms", "quality"),
    [(1_000, Quality.MEASURED), (999, Quality.INTERPOLATED), (199, Quality.SUB_SENSOR)],
)
def test_quality_follows_the_number_of_refreshes(length_ms: int, quality: Quality) -> None:
    """Ten refreshes are measured, two are interpolated, fewer are below the sensor."""
    books = run_all(
        ledger_with(idle_watts={GPU: 0.0}), bins_of([1_000_000] * 12), [span("r", 0, length_ms)]
    )
    assert books.final["r"].quality is quality


def test_the_worst_domain_decides_and_one_unknown_domain_makes_the_sum_unknown() -> None:
    """Two GPUs, one of them dead: half the energy is not the energy."""
    ledger = ledger_with(facts(), facts("gpu:b"), idle_watts={GPU: 0.0, "gpu:b": 0.0})
    ledger.begin("r", [GPU, "gpu:b"], START_NS)
    for bin_ in bins_of([10_000_000] * 20):
        ledger.add(bin_)
    ledger.end("r", span("r", 0, 2_000))
    final = ledger.advance(START_NS + 2 * SECOND + SILENCE_NS, wall_offset_ns=0).final["r"]
    assert final.domains[GPU].joules == pytest.approx(200.0)
    assert final.energy_joules is None
    assert final.gpu_joules is None
    assert final.quality is Quality.NONE


def test_prefill_and_decode_add_up_to_active_and_are_unknown_without_a_first_token() -> None:
    """Split at the first token; never half and half."""
    seen = span("a", 0, 200, first_token_ns=START_NS + 50 * MS)
    energy = run_all(
        ledger_with(idle_watts={GPU: 0.0}), bins_of([10_000_000, 30_000_000]), [seen]
    ).final["a"]
    assert energy.prefill_joules == pytest.approx(5.0)
    assert energy.prefill_joules + energy.decode_joules == pytest.approx(energy.active_joules)
    unseen = run_all(
        ledger_with(idle_watts={GPU: 0.0}), bins_of([10_000_000] * 2), [span("b", 0, 200)]
    ).final["b"]
    assert unseen.prefill_joules is None
    assert unseen.decode_joules is None


def test_a_first_token_costs_what_another_does_at_least() -> None:
    """By tokens of which only those of the answer have a price: one of four was the prefill's."""
    work = Work.of(
        input_tokens=7,
        cached_tokens=7,
        output_tokens=4,
        arrivals_ns=[START_NS + at * MS for at in (50, 90, 130, 170)],
    )
    seen = span("a", 0, 200, first_token_ns=START_NS + 50 * MS, work=work)
    ledger = Ledger([facts()], policies=partial(policies_for, "tokens"), idle_watts={GPU: 0.0})
    energy = run_all(ledger, bins_of([10_000_000] * 2), [seen]).final["a"]
    assert energy.active_joules == pytest.approx(20.0)
    assert energy.prefill_joules == pytest.approx(5.0)


def test_a_prefill_in_which_nothing_was_drawn_is_unknown() -> None:
    """The meter shows idle power while the prompt is read: that took joules that nobody saw."""
    seen = span("a", 0, 200, first_token_ns=START_NS + 50 * MS)
    ledger = ledger_with(idle_watts={GPU: 100.0})
    energy = run_all(ledger, bins_of([10_000_000, 30_000_000]), [seen]).final["a"]
    assert energy.active_joules == pytest.approx(20.0)
    assert energy.prefill_joules is None
    assert energy.decode_joules is None
    assert "prefill_unknown" in energy.quality_reasons


def test_a_request_that_drew_nothing_has_a_prefill_of_nothing() -> None:
    """All of it was measured at idle power: its phases add up to the 0 that is told of both."""
    seen = span("a", 0, 200, first_token_ns=START_NS + 50 * MS)
    energy = run_all(ledger_with(idle_watts={GPU: 100.0}), bins_of([10_000_000] * 2), [seen]).final[
        "a"
    ]
    assert (energy.active_joules, energy.prefill_joules, energy.decode_joules) == (0.0, 0.0, 0.0)
    assert "prefill_unknown" not in energy.quality_reasons


def test_a_service_that_may_lie_elsewhere_may_have_used_more() -> None:
    """Placed where 40 J were, but up to 300 ms off: the bins beside it have 20 J more."""
    placed = span("a", 300, 700, late_ns=300 * MS)
    bins = bins_of([0, 10_000_000, 10_000_000, *[10_000_000] * 4, 0, 0])
    ledger = ledger_with(facts(max_watts=100.0), idle_watts={GPU: 0.0})
    energy = run_all(ledger, bins, [placed]).final["a"]
    assert energy.energy_joules == pytest.approx(40.0)
    assert energy.high_joules >= 60.0
    assert energy.exclusive_high_joules >= 60.0
    sure = run_all(
        ledger_with(facts(max_watts=100.0), idle_watts={GPU: 0.0}), bins, [span("a", 300, 700)]
    ).final["a"]
    assert sure.high_joules == pytest.approx(40.0)


def test_a_request_that_was_never_served_gets_nothing() -> None:
    """A refused request has no energy, and says why."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    ledger.begin("r", [GPU], START_NS)
    ledger.end("r", None)
    ledger.add(bins_of([10_000_000])[0])
    closing = ledger.advance(START_NS + SECOND, wall_offset_ns=0)
    assert closing.final["r"].energy_joules is None
    assert closing.final["r"].quality_reasons == ("not_served",)
    assert closing.minutes[0].unattributed_joules == pytest.approx(10.0)


def test_asking_early_leaves_no_trace_in_the_final_record() -> None:
    """What a preview had to leave open is not held against the finished record."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    ledger.begin("r", [GPU], START_NS)
    bins = bins_of([10_000_000] * 10)
    ledger.add(bins[0])
    ledger.end("r", span("r", 0, 1_000))
    now_ns = START_NS + SECOND
    assert ledger.posted(["r"])["r"].energy_joules is None
    assert ledger.preview("r", now_ns).energy_joules == pytest.approx(10.0)
    for bin_ in bins[1:]:
        ledger.add(bin_)
    final = ledger.advance(now_ns + SECOND, wall_offset_ns=0).final["r"]
    assert final.energy_joules == pytest.approx(100.0)
    assert final.quality is Quality.MEASURED
    assert final.quality_reasons == ()


def test_time_that_nobody_measured_widens_the_upper_bound() -> None:
    """Half a second without bins may have cost up to P_max; the point is what was measured."""
    ledger = ledger_with(facts(max_watts=700.0), idle_watts={GPU: 0.0})
    books = run_all(ledger, bins_of([10_000_000] * 5), [span("r", -500, 500)])
    energy = books.final["r"]
    assert energy.energy_joules == pytest.approx(50.0)
    assert energy.high_joules == pytest.approx(50.0 + 350.0)
    assert energy.quality is Quality.GAP


def test_a_sensor_that_comes_back_does_not_charge_the_silence_to_the_next_request() -> None:
    """Those whose records went out unmeasured still take their part of the long bin: nobody's."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    bins = bins_of([1_000_000, 100_000_000], length_ns=100 * SECOND)
    ledger.add(bins[0])
    ledger.begin("lost", [GPU], bins[1].start_ns)
    lost = Interval(bins[1].start_ns, bins[1].start_ns + 60 * SECOND)
    ledger.end("lost", Span("lost", lost))
    first = ledger.advance(lost.end_ns + SILENCE_NS, wall_offset_ns=0)
    assert first.final["lost"].energy_joules is None
    ledger.begin("next", [GPU], bins[1].end_ns - 20 * SECOND)
    ledger.end("next", Span("next", Interval(bins[1].end_ns - 20 * SECOND, bins[1].end_ns)))
    ledger.add(bins[1])
    books = Books.of([first, ledger.advance(bins[1].end_ns + MAX_OPEN_NS, wall_offset_ns=0)])
    assert books.final["next"].energy_joules == pytest.approx(25.0)
    assert books.sum("unattributed_joules") == pytest.approx(1.0 + 75.0)
    assert sum(one.residual_joules for one in books.minutes) == pytest.approx(0, abs=1e-9)


def test_what_a_forced_closing_charged_stays_in_the_record_and_is_said() -> None:
    """Ten minutes after its end a bin closes on a request that still runs, and may be wrong."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    ledger.begin("r", [GPU], START_NS)
    bin_ = bins_of([10_000_000])[0]
    ledger.add(bin_)
    closing = ledger.advance(bin_.end_ns + MAX_OPEN_NS, wall_offset_ns=0)
    assert closing.minutes[0].active_joules == pytest.approx(10.0)
    ledger.end("r", None)
    energy = ledger.advance(bin_.end_ns + MAX_OPEN_NS, wall_offset_ns=0).final["r"]
    assert energy.energy_joules == pytest.approx(10.0)
    assert energy.quality is Quality.GAP
    assert "forced_close" in energy.quality_reasons


def test_one_load_counts_once_however_many_wait_for_it() -> None:
    """Four requests wait for a model while another runs: the load takes one seat of two."""
    load = Interval(START_NS, START_NS + 100 * MS)
    waiting = [span(f"w{k}", 100, 200, load=load, model="big") for k in range(4)]
    books = run_all(
        ledger_with(idle_watts={GPU: 0.0}), bins_of([50_000_000]), [*waiting, span("busy", 0, 100)]
    )
    assert books.final["busy"].energy_joules == pytest.approx(25.0)
    assert [books.final[f"w{k}"].load_joules for k in range(4)] == [pytest.approx(6.25)] * 4


def test_a_load_that_nobody_measured_is_unknown_not_zero() -> None:
    """It lay in a reset; the service after it was measured."""
    load = Interval(START_NS, START_NS + 100 * MS)
    books = run_all(
        ledger_with(idle_watts={GPU: 0.0}),
        bins_of([None, 10_000_000]),
        [span("r", 100, 200, load=load)],
    )
    assert books.final["r"].load_joules is None
    assert "load_unmeasured" in books.final["r"].quality_reasons


def test_concurrency_counts_those_in_service_not_those_who_queue() -> None:
    """One slot: four requests one after the other, all sent at once."""
    ledger = ledger_with(idle_watts={GPU: 0.0})
    spans = [span(f"r{k}", k * 1_000, (k + 1) * 1_000) for k in range(4)]
    for one in spans:
        ledger.begin(one.request, [GPU], START_NS)
    for bin_ in bins_of([10_000_000] * 40):
        ledger.add(bin_)
    for one in spans:
        ledger.end(one.request, one)
    final = ledger.advance(START_NS + 4 * SECOND + MAX_OPEN_NS, wall_offset_ns=0).final
    assert [final[f"r{k}"].concurrency_mean for k in range(4)] == [pytest.approx(1.0)] * 4
