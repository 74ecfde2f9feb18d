"""From counter to record: the bounds hold the truth whatever phase the sensor had."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from collectors.base import Domain, Kind, Measure, Reading
from melodi.energy.bins import Interval, Span
from melodi.energy.ledger import MAX_OPEN_NS, SILENCE_NS, Ledger
from melodi.energy.policies import policies_for
from melodi.energy.tally import DomainFacts
from melodi.energy.total import RequestEnergy
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
    works: list[Work], *, refresh_ms: int, phase_ms: int, poll_ms: int, known: bool
) -> dict[str, RequestEnergy]:
    """Poll a counter that is renewed every `refresh_ms`, and close the books."""
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
    for k, one in enumerate(works):
        ledger.begin(str(k), ["gpu:a"], one.start_ms * MS)
    for at_ms in range(0, END_MS + 500, poll_ms):
        shown_ms = max(0, (at_ms - phase_ms) // refresh_ms * refresh_ms + phase_ms)
        reading = Reading("gpu:a", at_ms * MS, 0, energy_uj=energy_uj(works, shown_ms))
        if (bin_ := curve.feed(reading)) is not None:
            ledger.add(bin_)
    for k, one in enumerate(works):
        ledger.end(str(k), Span(str(k), Interval(one.start_ms * MS, one.end_ms * MS)))
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
