"""What is kept for dividing joules anew comes back as it was, and is forgotten in time."""

from array import array
from dataclasses import replace

import pytest
from energy_records import make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melodi.energy.bins import Bin, Booked, Interval, Span
from melodi.energy.engine import EngineSteps
from melodi.energy.tally import DomainFacts
from melodi.energy.usage import Usage
from melodi.energy.work import Work
from melodi.store.kept import Kept, KeptRequest, read_kept, to_kept_row
from melodi.store.records import Batch, RecordStore

US = 1000
LONG = st.integers(0, 10**15)
WATTS = st.none() | st.floats(0, 1000)
FACTS = DomainFacts(
    name="gpu:a", kind="gpu", scope="gpu", source="test", origin="sensor", refresh_ns=1
)


@st.composite
def bins(draw: st.DrawFn) -> tuple[Bin, ...]:
    found = []
    for domain in draw(st.lists(st.sampled_from(["gpu:a", "package:0"]), unique=True)):
        end_ns, total_uj = draw(LONG), draw(LONG)
        for _ in range(draw(st.integers(0, 5))):
            energy_uj = draw(st.none() | LONG)
            start_ns, end_ns = end_ns, end_ns + draw(LONG)
            total_uj += energy_uj or 0
            found.append(
                Bin(
                    domain=domain,
                    start_ns=start_ns,
                    end_ns=end_ns,
                    energy_uj=energy_uj,
                    total_uj=total_uj,
                    half_width_ns=draw(LONG),
                    reason=draw(st.none() | st.just("stall")),
                    booked=Booked(draw(st.integers(0, 10**8)), draw(WATTS)),
                )
            )
    return tuple(found)


@st.composite
def requests(draw: st.DrawFn) -> KeptRequest:
    sent_ns = draw(LONG)
    load_ns = draw(st.none() | LONG)
    work = None
    if draw(st.booleans()):
        arrivals = sorted(draw(st.lists(LONG, max_size=5)))
        seen_ns = array("q", [sent_ns + one * US for one in arrivals])
        work = Work(draw(LONG), draw(LONG), draw(LONG), seen_ns)
    span = Span(
        draw(st.uuids().map(str)),
        Interval(start_ns := draw(LONG), start_ns + draw(LONG)),
        draw(st.none() | LONG),
        None if load_ns is None else Interval(load_ns, load_ns + draw(LONG)),
        work,
        draw(st.sampled_from(["", "ollama"])),
        draw(st.sampled_from(["", "tiny"])),
        draw(LONG),
    )
    domains = draw(st.sampled_from([(), ("gpu:a",), ("gpu:a", "package:0")]))
    return KeptRequest(span, sent_ns, domains)


def told(kept: Kept) -> tuple[object, ...]:
    """All that is in it, with the tokens as numbers that can be compared."""
    works = [one.span.work for one in kept.requests]
    plain = [replace(one, span=replace(one.span, work=None)) for one in kept.requests]
    tokens = [
        one and (one.input_tokens, one.prefill_tokens, one.output_tokens, one.arrivals_ns.tolist())
        for one in works
    ]
    return (replace(kept, requests=tuple(plain)), tokens)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(bins=bins(), requests=st.lists(requests(), max_size=4))
def test_what_is_kept_comes_back_as_it_was(
    store: RecordStore, bins: tuple[Bin, ...], requests: list[KeptRequest]
) -> None:
    """Bins, services, loads, tokens, usage and steps: from every database, to the digit."""
    host = make_record().id
    usage = Usage(domain="gpu:a", start_ns=1, end_ns=2, shares={"b": 0.5}, reason="why")
    made = EngineSteps(backend="b", start_ns=1, end_ns=2, steps=0.1, prefill_tokens=3.5)
    kept = Kept(
        session="s",
        number=0,
        minute=7,
        facts=(FACTS,),
        bins=bins,
        requests=tuple(requests),
        usages=(usage,),
        steps=(made, replace(made, steps=None)),
    )
    store.apply([Batch(host=host, kept=(kept,))])
    (found,) = store.ask(lambda one: read_kept(one, host, first_minute=7, last_minute=7))
    assert told(found) == told(kept)


def test_a_bin_must_have_been_booked() -> None:
    """One of which nobody knows where it went cannot be put there again."""
    loose = Bin(domain="gpu:a", start_ns=0, end_ns=1, energy_uj=1, total_uj=1)
    kept = Kept(session="s", number=0, minute=0, facts=(), bins=(loose,), requests=())
    with pytest.raises(ValueError, match="close it first"):
        to_kept_row("h", kept)


def test_old_minutes_are_forgotten_each_host_by_itself(store: RecordStore) -> None:
    """What was kept before a minute goes, of this host alone."""
    for host in ("here", "there"):
        kept = tuple(
            Kept(session="s", number=n, minute=n, facts=(), bins=(), requests=()) for n in range(3)
        )
        store.apply([Batch(host=host, kept=kept)])
    store.forget_kept("here", before_minute=2)
    for host, left in (("here", [2]), ("there", [0, 1, 2])):
        found = store.ask(
            lambda one, host=host: read_kept(one, host, first_minute=0, last_minute=9)
        )
        assert [one.minute for one in found] == left
