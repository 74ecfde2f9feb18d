"""Counters = accounts = stored records, whatever happened, and also after dividing anew."""

from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import pytest
from energy_records import START_NS, make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melodi.analysis.recompute import Recomputing, recompute
from melodi.clock import NS_PER_MINUTE, NS_PER_SECOND, to_datetime
from melodi.daemon.keeping import Keeper
from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.ledger import LATEST_NS, Ledger
from melodi.energy.policies import policies_for
from melodi.energy.record import EnergyRecord
from melodi.energy.tally import DomainFacts
from melodi.energy.total import charged
from melodi.energy.usage import Usage
from melodi.energy.work import Work
from melodi.ids import new_id
from melodi.store.queries import RequestFilter
from melodi.store.records import Batch, RecordStore, read_some

KINDS = {"gpu:a": "gpu", "package:0": "cpu"}
SECONDS = 100
FIRST_MINUTE = START_NS // NS_PER_MINUTE
TURN_SECONDS = 5


@dataclass(frozen=True)
class Asked:
    """A request, and when the books hear of it."""

    span: Span
    sent_ns: int
    domains: tuple[str, ...]
    late: bool


@dataclass(frozen=True)
class Story:
    """What happened on a host in a minute and a half."""

    bins: dict[str, list[Bin]] = field(repr=False)
    requests: list[Asked]
    usages: list[Usage] = field(repr=False)
    idle_watts: dict[str, float] = field(default_factory=dict)


def at(seconds: float) -> int:
    return round((1000 + seconds) * NS_PER_SECOND)


@st.composite
def sensors(draw: st.DrawFn, domain: str) -> list[Bin]:
    """A second each; some unmeasured, and at times the sensor dies before the end."""
    total_uj, found = 0, []
    for second in range(draw(st.sampled_from([SECONDS, SECONDS, 55, 20]))):
        lost = draw(st.integers(0, 30)) == 0
        energy_uj = None if lost else draw(st.integers(0, 300_000_000))
        total_uj += energy_uj or 0
        found.append(
            Bin(
                domain=domain,
                start_ns=at(second),
                end_ns=at(second + 1),
                energy_uj=energy_uj,
                total_uj=total_uj,
                half_width_ns=NS_PER_SECOND // 20,
                reason="counter_reset" if lost else None,
            )
        )
    return found


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    start = draw(st.floats(1, SECONDS - 5))
    end = start + draw(st.floats(0, 40))
    load = draw(st.none() | st.floats(0.2, 10))
    tokens = draw(st.integers(0, 200))
    work = None
    if draw(st.integers(0, 3)):
        step = (end - start) / (tokens + 1)
        seen = [at(start + step * k) // 1000 * 1000 for k in range(1, tokens + 1)]
        work = Work.of(input_tokens=50, cached_tokens=0, output_tokens=tokens, arrivals_ns=seen)
    sent_ns = at(start - (load or 0.0))
    first_ns = at((start + end) / 2) if draw(st.booleans()) else None
    span = Span(
        new_id(START_NS + sent_ns),
        Interval(at(start), at(end)),
        first_ns,
        None if load is None else Interval(sent_ns, at(start)),
        work,
        draw(st.sampled_from(["one", "two"])),
        draw(st.sampled_from(["big", "small"])),
    )
    domains = draw(st.sampled_from([("gpu:a",), ("package:0",), ("gpu:a", "package:0")]))
    return Asked(span, sent_ns, domains, late=draw(st.integers(0, 6)) == 0)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    shares = st.dictionaries(st.sampled_from(["one", "two"]), st.floats(0, 0.5))
    watched = draw(st.booleans())
    return Story(
        bins={name: draw(sensors(name)) for name in KINDS},
        requests=draw(st.lists(requests(), max_size=8)),
        usages=[
            Usage(
                domain="package:0",
                start_ns=at(second),
                end_ns=at(second + 1),
                shares=draw(shares),
                reason="foreign_estimated",
            )
            for second in range(SECONDS if watched else 0)
        ],
        idle_watts=draw(st.dictionaries(st.sampled_from(list(KINDS)), st.floats(0, 100))),
    )


def record_of(one: Asked, host: str) -> EnergyRecord:
    return make_record(
        id=one.span.request,
        host=host,
        backend=one.span.backend,
        model=one.span.model,
        started_at=to_datetime(START_NS + one.sent_ns),
    )


def live(story: Story, store: RecordStore, host: str) -> None:
    """Let a daemon's books go through it, turn by turn, and store what they say."""
    facts = [
        DomainFacts(
            name=name,
            kind=kind,
            scope=kind,
            source="test",
            origin="sensor",
            refresh_ns=NS_PER_SECOND,
        )
        for name, kind in KINDS.items()
    ]
    policies = partial(policies_for, "time")
    ledger = Ledger(facts, policies=policies, idle_watts=story.idle_watts)
    keeper = Keeper(lambda: ledger.facts)
    told: set[str] = set()
    plain = {one.span.request: record_of(one, host) for one in story.requests}
    bins = [one for some in story.bins.values() for one in some]
    moments = [at(second) for second in range(0, SECONDS + 60, TURN_SECONDS)]
    for before_ns, now_ns in zip(
        [0, *moments], [*moments, at(SECONDS + 60) + LATEST_NS], strict=True
    ):
        for one in sorted(story.requests, key=lambda one: one.sent_ns):
            name, end_ns = one.span.request, one.span.service.end_ns
            heard_ns = end_ns + 15 * NS_PER_SECOND if one.late else one.sent_ns
            if before_ns <= heard_ns < now_ns:
                ledger.begin(name, one.domains, one.sent_ns)
                keeper.begin(name, one.domains, one.sent_ns)
            if before_ns <= max(end_ns, heard_ns) < now_ns:
                told.add(name)
                ledger.end(name, one.span)
                keeper.end(name, one.span)
        for usage in story.usages:
            if before_ns <= usage.end_ns < now_ns:
                ledger.use(usage)
                keeper.use(usage)
        for bin_ in bins:
            if before_ns <= bin_.end_ns < now_ns:
                ledger.add(bin_)
        closing = ledger.advance(now_ns, wall_offset_ns=START_NS)
        keeper.close(closing.bins)
        final = tuple(charged(plain[name], one) for name, one in closing.final.items())
        is_last = now_ns > moments[-1]
        minute = (min(now_ns, moments[-1]) + START_NS) // NS_PER_MINUTE
        kept = keeper.take(minute, everything=is_last)
        minutes = tuple(closing.minutes)
        store.apply([Batch(host=host, records=final, minutes=minutes, kept=kept)])
    assert told == plain.keys()


def check(story: Story, store: RecordStore, host: str) -> None:
    lines = {line.domain: line for line in store.ledger() if line.host == host}
    for domain, bins in story.bins.items():
        measured = sum(one.energy_uj or 0 for one in bins) / 1e6
        tolerance = 1e-9 * max(1.0, measured)
        assert lines[domain].measured_joules == pytest.approx(measured, abs=tolerance)
        assert abs(lines[domain].residual_joules) <= tolerance
        assert store.audit(domain, host=host).difference_joules <= tolerance


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=25,
)
@given(
    story=stories(),
    policy=st.sampled_from(["auto", "steps", "tokens", "time"]),
    cut=st.none() | st.tuples(st.integers(16, 18), st.integers(16, 18)),
)
def test_stored_records_and_accounts_hold_what_was_measured(
    sqlite_store: RecordStore, story: Story, policy: str, cut: tuple[int, int] | None
) -> None:
    """With two backends, loads, foreign work, late records and lost sensors; and recomputed."""
    store, host = sqlite_store, new_id(START_NS)
    live(story, store, host)
    check(story, store, host)
    first, last = sorted(cut) if cut else (0, 100)
    asked = Recomputing(
        host=host,
        policy=policy,
        first_minute=FIRST_MINUTE + first,
        last_minute=FIRST_MINUTE + last,
    )
    # A cut stays where it is, amid requests.
    with patch("melodi.analysis.recompute.WIDEN_MINUTES", 0):
        revised = store.ask(lambda one: recompute(one, asked))
    store.revise(revised.batch)
    check(story, store, host)
    wanted = RequestFilter(host=host)
    records = {one.id: one for one in store.ask(lambda one: list(read_some(one, wanted)))}
    assert len(records) == len(story.requests)
    if cut is None:
        changed = {one.before.id for one in revised.revisions}
        # One that was never served has no footprint: nothing of it could be divided.
        gone = {one.id for one in records.values() if one.footprint} - changed
        assert revised.left == len(gone)
    for one in records.values():
        if one.energy_joules is not None and one.high_joules is not None:
            assert one.low_joules <= one.energy_joules + 1e-9
            assert one.energy_joules <= one.high_joules + 1e-9
