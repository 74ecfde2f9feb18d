"""Records divided anew are those of a daemon that had always divided so, and the books close."""

from dataclasses import asdict, replace
from math import fsum
from typing import Any

import pytest
from kept_books import FIRST_MINUTE, HOST, KeptBooks, kept_books

from melodi.analysis.recompute import Recomputing, Revised, recompute
from melodi.energy.record import EnergyRecord
from melodi.energy.total import RequestEnergy
from melodi.errors import StoreError
from melodi.store.figures import Rates
from melodi.store.queries import RequestFilter
from melodi.store.records import Batch, RecordStore, read_some
from melodi.store.stats import StatsQuery, read_stats

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


@pytest.mark.parametrize("streamed", [True, False])
def test_dividing_anew_gives_what_that_policy_would_have_given(
    store: RecordStore, streamed: bool
) -> None:
    """Kept by time, recomputed to auto: every figure of every record and minute is auto's.

    By the times of tokens, or by the engine's counters where nobody streamed.
    """
    pause = 40 if streamed else 0
    books = kept_books(store, policy="time", other="auto", streamed=streamed, pause=pause)
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


def test_a_part_of_busy_time_is_divided_anew_and_the_books_still_close(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that began in it; who only ended in it stays as it is. The books and counter agree."""
    monkeypatch.setattr("melodi.analysis.recompute.WIDEN_MINUTES", 0)
    books = kept_books(store, policy="time", other="auto", clients=3, requests=500, pause=0)
    before = stored(store)
    minutes = {line.minute for line in store.ledger(by="minute")}
    assert len(minutes) == 3
    minute = FIRST_MINUTE + 1
    revised = done(store, first_minute=minute, last_minute=minute)
    assert revised.left == 0
    after = stored(store)
    changed = {one.before.id for one in revised.revisions}
    assert 20 <= len(changed) < 400
    assert changed >= {id_ for id_, one in before.items() if _minute_of(one) == minute}
    assert all(after[id_] == one for id_, one in before.items() if id_ not in changed)
    ended = {id_ for id_, one in before.items() if _minute_of(one) < minute}
    assert not changed & ended
    for line in store.ledger(by="minute"):
        assert abs(line.residual_joules) <= 1e-9 * line.measured_joules
        assert abs(line.unattributed_joules) < 1e-3 * line.measured_joules
    check_books(store, books)


def _minute_of(record: EnergyRecord) -> int:
    return int(record.started_at.timestamp() // 60)


def test_a_cut_is_moved_to_where_nobody_ran(store: RecordStore) -> None:
    """With pauses near, whole stretches of work are divided anew, and nobody is cut in two."""
    books = kept_books(store, policy="time", other="auto", pause=20)
    revised = done(store, first_minute=FIRST_MINUTE + 1, last_minute=FIRST_MINUTE + 1)
    assert revised.left == 0
    for id_, record in stored(store).items():
        if record.revision == 2:
            assert record.energy_joules == pytest.approx(books.other.final[id_].energy_joules, 0.2)
    unattributed = fsum(one.unattributed_joules for one in books.other.minutes)
    (line,) = store.ledger()
    assert line.unattributed_joules == pytest.approx(unattributed, rel=1e-9)
    check_books(store, books)


def test_a_late_record_becomes_right(store: RecordStore) -> None:
    """One of which the books heard after its bins had closed gets its joules from those of all."""
    books = kept_books(store, policy="auto", other="auto", late_every=10)
    before = stored(store)
    late = {request for request, _, _ in books.late}
    assert len(late) == 12
    assert all(before[id_].energy_joules is None for id_ in late)
    assert all(before[id_].quality == "none" for id_ in late)
    assert all("late" in before[id_].quality_reasons for id_ in late)
    done(store)
    for id_, record in stored(store).items():
        assert costs(books.other.final[id_]) == costs(record)
    check_books(store, books)


def test_records_whose_bins_are_gone_stay_and_are_counted(store: RecordStore) -> None:
    """What was forgotten of the first minutes leaves their requests as they are."""
    books = kept_books(store, policy="time", other="auto", clients=3, requests=400, pause=0)
    store.forget_kept(HOST, before_minute=FIRST_MINUTE + 2)
    before = stored(store)
    revised = done(store)
    after = stored(store)
    assert revised.left > 0
    assert revised.left + len(revised.revisions) == 400
    for id_, record in before.items():
        if record.started_at.minute == 0:
            assert after[id_] == record
    check_books(store, books)


def test_nothing_kept_means_nothing_changed(store: RecordStore) -> None:
    """All are left, and the ledger gains nothing."""
    kept_books(store, policy="time", other="auto", requests=20)
    store.forget_kept(HOST, before_minute=LAST_MINUTE)
    ledger = store.ledger(by="minute")
    revised = done(store)
    assert (revised.revisions, revised.left) == ((), 20)
    assert store.ledger(by="minute") == ledger


def test_only_one_backend_may_be_asked_for(store: RecordStore) -> None:
    """Records of others stay; the books close all the same."""
    books = kept_books(store, policy="time", other="auto", requests=30)
    assert done(store, backend="other").revisions == ()
    assert len(done(store, backend="sim").revisions) == 30
    check_books(store, books)


def test_again_and_back_again(store: RecordStore) -> None:
    """Each time is one more revision, and going back gives the figures of before."""
    books = kept_books(store, policy="time", other="auto", requests=30)
    before = stored(store)
    done(store)
    done(store, policy="time")
    for id_, record in stored(store).items():
        assert record.revision == 3
        assert costs(before[id_]) == costs(record)
    check_books(store, books)


def test_whoever_is_overtaken_changes_nothing(store: RecordStore) -> None:
    """Of two that read the same state, the second to write is refused as a whole."""
    books = kept_books(store, policy="time", other="auto", requests=20)
    first, second = (store.ask(lambda one: recompute(one, asked())) for _ in range(2))
    store.revise(first.batch)
    with pytest.raises(StoreError, match="changed meanwhile; do it again"):
        store.revise(second.batch)
    check_books(store, books)


def test_roll_ups_follow(store: RecordStore) -> None:
    """Statistics over hours count the new revision once, and the old one no more."""
    kept_books(store, policy="time", other="auto", requests=30)
    done(store)
    query = StatsQuery(by=("policy",))
    groups = store.ask(lambda one: read_stats(one, query, rates=Rates()))
    records = stored(store).values()
    for group in groups:
        policy = group.by["policy"]
        joules = [one.energy_joules for one in records if one.policy == policy]
        assert group.count + sum(group.left_out.values()) == len(joules)
        counted = [
            one.energy_joules
            for one in records
            if one.policy == policy and one.quality in ("measured", "interpolated")
        ]
        assert group.joules_per_request.sum == pytest.approx(fsum(counted))
    assert "steps" in {group.by["policy"] for group in groups}


def test_other_reasons_of_a_record_stay(store: RecordStore) -> None:
    """What the books did not say is not theirs to take back; that the daemon stopped is."""
    kept_books(store, policy="time", other="auto", requests=10)
    one = next(iter(stored(store).values()))
    told = replace(one, quality_reasons=("daemon_stopped", "devices_assumed"))
    store.apply([Batch(host=HOST, records=(told,))])
    done(store)
    assert stored(store)[one.id].quality_reasons == ("devices_assumed",)


def test_too_many_at_once_are_refused(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they are read, with what to do."""
    kept_books(store, policy="time", other="auto", requests=10)
    monkeypatch.setattr("melodi.analysis.recompute.MOST_RECORDS", 9)
    with pytest.raises(StoreError, match=r"more than 9 .* by --since and --until"):
        done(store)


def test_an_unknown_policy_is_refused(store: RecordStore) -> None:
    """With the names of those that there are."""
    with pytest.raises(ValueError, match="use auto, steps, tokens, time"):
        done(store, policy="fair")
