"""Records divided anew are those of a daemon that had always divided so, and the books close."""

from dataclasses import asdict
from math import fsum
from typing import Any

import pytest
from kept_books import FIRST_MINUTE, HOST, KeptBooks

from melodi.analysis.recompute import Recomputing, Revised, recompute
from melodi.energy.record import EnergyRecord
from melodi.energy.total import RequestEnergy
from melodi.store.queries import RequestFilter
from melodi.store.records import RecordStore, read_some

LAST_MINUTE = FIRST_MINUTE + 1000


def stored(store: RecordStore) -> dict[str, EnergyRecord]:
    found = store.ask(lambda one: list(read_some(one, RequestFilter())))
    return {one.id: one for one in found}


def asked(**more: Any) -> Recomputing:
    plain = {
        "host": HOST,
        "policy": "auto",
        "first_minute": FIRST_MINUTE,
        "last_minute": LAST_MINUTE,
    }
    return Recomputing(**(plain | more))


def done(store: RecordStore, **more: Any) -> Revised:
    revised = store.ask(lambda one: recompute(one, asked(**more)))
    store.revise(revised.batch)
    return revised


def costs(energy: RequestEnergy | EnergyRecord) -> dict[str, Any]:
    """All that the books say of a request, to what rounding leaves."""
    told = asdict(energy)
    names = RequestEnergy.__dataclass_fields__
    return {name: rounded(told[name]) for name in names}


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-9, abs=1e-9)
    return list(value) if isinstance(value, tuple) else value


def check_books(store: RecordStore, books: KeptBooks) -> None:
    """Counter readings = accounts, and accounts = records."""
    (line,) = store.ledger()
    measured = books.curve.edges[-1].total_uj / 1e6
    assert line.measured_joules == pytest.approx(measured, rel=1e-12)
    assert abs(line.residual_joules) <= 1e-9 * measured
    assert store.audit(books.domain, host=HOST).difference_joules <= 1e-9 * measured


def test_dividing_anew_gives_what_that_policy_would_have_given(store: RecordStore) -> None:
    """Kept by time, recomputed to auto: every figure of every record and minute is auto's."""
    books = KeptBooks(store, policy="time", other="auto")
    books.run()
    before = stored(store)
    assert {one.policy for one in before.values()} == {"time"}
    revised = done(store)
    after = stored(store)
    assert len(revised.revisions) == len(after) == 120
    assert revised.left == 0
    assert after.keys() == books.other.final.keys()
    for id_, record in after.items():
        assert costs(books.other.final[id_]) == costs(record)
        assert (record.revision, record.provisional) == (2, False)
        assert record.seq == before[id_].seq
        assert record.joules_per_output_token == record.energy_joules / record.output_tokens
    assert {one.policy for one in after.values()} >= {"steps"}
    expected = fsum(one.active_joules for one in books.other.minutes)
    (line,) = store.ledger()
    assert line.active_joules == pytest.approx(expected, rel=1e-9)
    check_books(store, books)
