"""The books close under any mix of bins and requests, and bins wait for those in them."""

import math
from dataclasses import dataclass, replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.accounts import MinuteAccounts
from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, SILENCE_NS, Closing, Ledger
from melodi.energy.policies import policies_for
from melodi.energy.record import Quality
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy

MS = 1_000_000
SECOND = 1_000 * MS
GPU = "gpu:a"
START_NS = 1_000 * SECOND


def facts(name: str = GPU, **changes: object) -> DomainFacts:
    known = {
        "name": name,
        "kind": "gpu",
        "scope": "gpu",
        "source": "test",
        "origin": "sensor",
        "refresh_ns": 100 * MS,
        "exclusive": True,
    }
    return DomainFacts(**(known | changes))  # type: ignore[arg-type]


def ledger_with(*domains: DomainFacts, idle_watts: dict[str, float] | None = None) -> Ledger:
    return Ledger(
        domains or (facts(),), policies=partial(policies_for, "auto"), idle_watts=idle_watts
    )


def bins_of(
    energies_uj: list[int | None], *, domain: str = GPU, length_ns: int = 100 * MS
) -> list[Bin]:
    """Consecutive bins from START_NS on."""
    result, total = [], 0
    for k, energy_uj in enumerate(energies_uj):
        total += energy_uj or 0
        start_ns = START_NS + k * length_ns
        result.append(
            Bin(
                domain=domain,
                start_ns=start_ns,
                end_ns=start_ns + length_ns,
                energy_uj=energy_uj,
                total_uj=total,
                reason=None if energy_uj is not None else "counter_reset",
            )
        )
    return result


@dataclass
class Books:
    """Everything that a ledger closed, added up."""

    minutes: list[MinuteAccounts]
    final: dict[str, RequestEnergy]

    @classmethod
    def of(cls, closings: list[Closing]) -> "Books":
        minutes = [minute for closing in closings for minute in closing.minutes]
        final = {key: one for closing in closings for key, one in closing.final.items()}
        return cls(minutes, final)

    def sum(self, account: str, domain: str = GPU) -> float:
        return math.fsum(getattr(one, account) for one in self.minutes if one.domain == domain)


def run_all(ledger: Ledger, bins: list[Bin], spans: list[Span], domain: str = GPU) -> Books:
    """Requests begin, bins arrive, requests end, the books close."""
    for span in spans:
        sent_ns = min(part.start_ns for part in span.parts)
        ledger.begin(span.request, [domain], sent_ns)
    for bin_ in bins:
        ledger.add(bin_)
    for span in spans:
        ledger.end(span.request, span)
    end_ns = max([bins[-1].end_ns, *(span.service.end_ns for span in spans)])
    return Books.of([ledger.advance(end_ns + MAX_OPEN_NS + SILENCE_NS, wall_offset_ns=0)])


def span(name: str, start_ms: int, end_ms: int, **more: object) -> Span:
    service = Interval(START_NS + start_ms * MS, START_NS + end_ms * MS)
    return Span(name, service, **more)  # type: ignore[arg-type]


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


def test_the_bins_of_a_busy_domain_close_in_few_rounds_and_others_one_by_one() -> None:
    """Bins between which idle power may be learned wait for each other."""
    ledger = ledger_with(idle_watts={GPU: 100.0})
    ledger.begin("r", [GPU], START_NS)
    for bin_ in bins_of([20_000_000] * 17 + [10_000_000] * 108):
        ledger.add(bin_)
    ledger.end("r", span("r", 0, 1_700))
    rounds: list[None] = []
    ledger.advance(START_NS + 20 * SECOND, wall_offset_ns=0, between=lambda: rounds.append(None))
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
