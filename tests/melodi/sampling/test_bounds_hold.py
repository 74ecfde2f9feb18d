"""From counter to record: the bounds hold the truth whatever phase the sensor had."""

from array import array
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from collectors.base import Domain, Kind, Measure, Reading
from melodi.energy.bins import Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, SILENCE_NS, Ledger
from melodi.energy.policies import policies_for
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy
from melodi.energy.work import Work as Tokens
from melodi.energy.work import held_up_ns
from melodi.sampling.meters import EnergyCurve

MS = 1_000_000
IDLE_WATTS = 100
MAX_WATTS = 900
END_MS = 4_000


@dataclass(frozen=True)
class Work:
    """A request that draws so many watts of its own while it is in service."""

    start_ms: int
    end_ms: int
    watts: int

    def overlap_ms(self, start: float, end: float) -> float:
        return max(0.0, min(self.end_ms, end) - max(self.start_ms, start))


WORKS = st.lists(
    st.builds(
        lambda start, length, watts: Work(start, start + length, watts),
        st.integers(0, 3_000),
        st.integers(1, 900),
        st.integers(0, 150),
    ),
    min_size=1,
    max_size=5,
)


def energy_uj(works: list[Work], until_ms: float) -> int:
    """W x ms is mJ."""
    dynamic = sum(one.watts * one.overlap_ms(0, until_ms) for one in works)
    return round((IDLE_WATTS * until_ms + dynamic) * 1_000)


def true_idle_mj(works: list[Work], own: Work) -> float:
    """Idle power divided equally at each instant among those in service."""
    cuts = sorted({time for one in works for time in (one.start_ms, one.end_ms)})
    total = 0.0
    for start, end in pairwise(cuts):
        if own.overlap_ms(start, end):
            present = sum(one.overlap_ms(start, end) > 0 for one in works)
            total += IDLE_WATTS * (end - start) / present
    return total


def measure(
    works: list[Work],
    *,
    refresh_ms: int,
    phase_ms: int,
    poll_ms: int,
    known: bool,
    seen: Span | None = None,
) -> dict[str, RequestEnergy]:
    """Poll a counter that is renewed every `refresh_ms`, and close the books.

    `seen` is the only request as it was seen, where that is not as it was.
    """
    refresh_ns = refresh_ms * MS
    curve = EnergyCurve(
        Domain(
            name="gpu:a",
            kind=Kind.GPU,
            scope="gpu",
            source="test",
            measure=Measure.COUNTER,
            refresh_ns=refresh_ns if known else None,
        )
    )
    facts = DomainFacts(
        name="gpu:a",
        kind="gpu",
        scope="gpu",
        source="test",
        origin="sensor",
        refresh_ns=refresh_ns,
        max_watts=MAX_WATTS,
        exclusive=True,
    )
    ledger = Ledger(
        [facts], policies=partial(policies_for, "auto"), idle_watts={"gpu:a": IDLE_WATTS}
    )
    spans = [Span(str(k), Interval(w.start_ms * MS, w.end_ms * MS)) for k, w in enumerate(works)]
    for span in [seen] if seen else spans:
        ledger.begin(span.request, ["gpu:a"], span.service.start_ns)
    for at_ms in range(0, END_MS + 500, poll_ms):
        shown_ms = max(0, (at_ms - phase_ms) // refresh_ms * refresh_ms + phase_ms)
        reading = Reading("gpu:a", at_ms * MS, 0, energy_uj=energy_uj(works, shown_ms))
        if (bin_ := curve.feed(reading)) is not None:
            ledger.add(bin_)
    for span in [seen] if seen else spans:
        ledger.end(span.request, span)
    return ledger.advance(END_MS * MS + MAX_OPEN_NS + SILENCE_NS, wall_offset_ns=0).final


@given(
    WORKS,
    st.sampled_from([20, 100]),
    st.integers(0, 99),
    st.sampled_from([10, 50, 70]),
    st.booleans(),
)
def test_the_bounds_of_every_record_hold_its_true_energy(
    works: list[Work], refresh_ms: int, phase_ms: int, poll_ms: int, known: bool
) -> None:
    """Own power and an equal share of idle, for any overlap, phase and poll period."""
    final = measure(
        works, refresh_ms=refresh_ms, phase_ms=phase_ms % refresh_ms, poll_ms=poll_ms, known=known
    )
    for k, one in enumerate(works):
        energy = final[str(k)]
        if energy.energy_joules is None:
            continue
        active = one.watts * (one.end_ms - one.start_ms) / 1_000
        truth = active + true_idle_mj(works, one) / 1_000
        slack = 1e-3  # the counter itself is rounded to microjoules
        assert energy.low_joules - slack <= truth <= energy.high_joules + slack
        assert energy.exclusive_high_joules + slack >= active
        assert energy.exclusive_low_joules - slack <= active


STEP_MS = 10


@given(
    st.integers(300, 1_500),
    st.integers(0, 150),
    st.integers(5, 400),
    st.integers(1, 200),
    st.integers(0, 599),
    st.sampled_from([20, 100]),
    st.booleans(),
)
def test_a_lone_stream_that_was_held_up_on_the_way_still_has_its_truth_within_the_bounds(
    length_ms: int, watts: int, hold_ms: int, free_ms: int, phase_ms: int, refresh: int, known: bool
) -> None:
    """A busy host takes it in late, and lets its pieces out only now and then."""

    def let_through(at_ms: int) -> int:
        into_ms = (at_ms + phase_ms) % (hold_ms + free_ms)
        return at_ms + max(0, hold_ms - into_ms)

    sent_ms = 500
    begun_ms = let_through(sent_ms)
    own = Work(begun_ms, begun_ms + length_ms, watts)
    made_ms = range(begun_ms + STEP_MS, own.end_ms + 1, STEP_MS)
    came = array("q", (let_through(at_ms) * MS for at_ms in made_ms))
    assume(held_up_ns(came, came[-1]) >= (hold_ms - STEP_MS) * MS)
    seen = Span(
        "0",
        Interval(sent_ms * MS, let_through(own.end_ms) * MS),
        first_token_ns=came[0],
        work=Tokens(10, 10, len(came), came),
    )
    energy = measure([own], refresh_ms=refresh, phase_ms=0, poll_ms=10, known=known, seen=seen)["0"]
    active = watts * length_ms / 1_000
    truth = active + IDLE_WATTS * length_ms / 1_000
    # What is made within a step shows its hold only to a step.
    slack = IDLE_WATTS * 2 * STEP_MS / 1_000
    assert energy.low_joules - slack <= truth <= energy.high_joules + 1e-3
    assert energy.exclusive_low_joules - 1e-3 <= active <= energy.exclusive_high_joules + 1e-3
