"""Divides the joules of bins among the requests in service during them (pure)."""

from collections.abc import Sequence

import numpy as np

from melodi.energy.attendance import attendances
from melodi.energy.bounds import bound
from melodi.energy.claims import claim
from melodi.energy.columns import Vector, union_within
from melodi.energy.roster import END, LOAD_END, LOAD_START, START, Guests
from melodi.energy.settlement import (
    ACTIVE,
    IDLE_SHARE,
    LOAD,
    PARTS,
    PREFILL,
    Case,
    Division,
    Posting,
    Settlement,
    Table,
)


def settle(cases: Sequence[Case], guests: Guests, *, kinds: int) -> Settlement:
    """Post every joule of measured bins to an account (MEASUREMENT: section 4, attribution).

    I = min(E, P_idle dt), D = E - I; with anybody in service each model of each backend has its
    claim A on D, active_i = A w_i / sum w in it, idle_share_i = I (u / dt) tau_i / sum tau over
    all; otherwise idle = I. The first of a model's policies that can weigh gives w; they learn
    from bins that the model had to itself before. The bins are of different domains: none hangs
    on another. `kinds` is the number of policies. Raises ValueError for a bin without energy.
    """
    tables = _tables(cases, guests) if len(guests) else []
    seated: list[list[Table]] = [[] for _ in cases]
    for table in tables:
        seated[table.bin].append(table)
    postings = [_post(case, some, guests) for case, some in zip(cases, seated, strict=True)]
    settlement = Settlement(
        postings, np.zeros((PARTS, len(guests))), np.zeros((2 * kinds, len(guests)))
    )
    if tables:
        _share_out(settlement, tables, guests)
        bound(settlement, cases, seated, guests)
    return settlement


def _tables(cases: Sequence[Case], guests: Guests) -> list[Table]:
    """Everybody who may have been in service, by bin and model."""
    numbers = guests.bin[guests.tables.starts].tolist()
    return [
        Table(number, part, group, attendance, cases[number].policies(group))
        for number, part, group, attendance in zip(
            numbers, guests.tables.parts, guests.groups, attendances(guests), strict=True
        )
    ]


def _post(case: Case, tables: Sequence[Table], guests: Guests) -> Posting:
    """Say what each table of a bin gets, and where the rest goes."""
    bin_, setting = case.bin, case.setting
    idle, dynamic = case.split()
    present = [one for one in tables if one.attendance.total > 0]
    if len(present) == 1 and setting.all_ours:
        for policy in present[0].policies:
            policy.learn(bin_, present[0].attendance, dynamic)
    for table in present:
        table.divisions = _divisions(table)
    parties = [one.party for one in present]
    claims = claim(dynamic, parties, setting.shares, exclusive=setting.exclusive)
    used = 0.0
    if present:
        used = idle * _union(present, guests, bin_.length_ns) / bin_.length_ns
        idle_per_ns = used / sum(one.attendance.total for one in present)
        for table, joules in zip(present, claims.joules, strict=True):
            table.joules, table.idle_per_ns = joules, idle_per_ns
    return Posting(
        idle=idle - used,
        foreign=claims.foreign,
        unattributed=claims.unattributed,
        unwatched=claims.unwatched,
        dynamic=dynamic,
    )


def _divisions(table: Table) -> list[Division]:
    """What every policy that knows enough would do, the preferred one first."""
    found: list[Division] = []
    reluctant: list[Division] = []
    for number, policy in enumerate(table.policies):
        weights = policy.weigh(table.attendance)
        total = 0.0 if weights is None else float(weights.sum()) + table.attendance.load
        if weights is not None and total > 0:
            divisions = reluctant if table.attendance.seats < policy.few else found
            divisions.append(Division(number, weights, total, policy.in_joules))
    return found + reluctant


def _union(present: Sequence[Table], guests: Guests, length_ns: int) -> float:
    """How long anybody was in service on the domain, or a model was loading."""
    if len(present) == 1:
        return present[0].attendance.union
    here = slice(present[0].part.start, present[-1].part.stop)
    starts = np.concatenate((guests.times[START, here], guests.times[LOAD_START, here]))
    ends = np.concatenate((guests.times[END, here], guests.times[LOAD_END, here]))
    return union_within(starts, ends, float(length_ns))


def _share_out(settlement: Settlement, tables: Sequence[Table], guests: Guests) -> None:
    """Give each table's joules to its members, and a load's to those who wait for it."""
    parts, by_policy, spread = settlement.parts, settlement.by_policy, guests.tables.spread
    kinds = len(by_policy) // 2
    parts[IDLE_SHARE] = spread(np.array([one.idle_per_ns for one in tables])) * guests.tau
    prefill, decode = _given(tables, [one.best for one in tables], guests)
    parts[ACTIVE] = prefill + decode
    parts[PREFILL] = prefill
    several = spread(np.array([len(one.divisions) > 1 for one in tables]))
    chosen = spread(np.array([-1 if one.best is None else one.best.policy for one in tables]))
    for kind in range(kinds):
        by_policy[kinds + kind] = parts[ACTIVE] * (chosen == kind)
        if several.any():
            whole = _given(tables, [_by(kind, one) for one in tables], guests).sum(axis=0)
            by_policy[kind] = (whole + parts[IDLE_SHARE]) * several
    if guests.waiting is not None:
        loads = np.array([_load(one, guests) for one in tables])
        parts[LOAD] = spread(loads) * guests.waiting
    _account(settlement, tables, guests)


def _by(kind: int, table: Table) -> Division | None:
    """A policy's division of a table, or the best where it has none."""
    return next((one for one in table.divisions if one.policy == kind), table.best)


def _given(tables: Sequence[Table], divisions: Sequence[Division | None], guests: Guests) -> Vector:
    """What the members of each table get by its division: for prefill, and for decoding."""
    weights = [
        np.zeros((2, table.part.stop - table.part.start)) if one is None else one.weights
        for table, one in zip(tables, divisions, strict=True)
    ]
    rates = [
        0.0 if one is None else table.joules / one.total
        for table, one in zip(tables, divisions, strict=True)
    ]
    given: Vector = np.concatenate(weights, axis=1) * guests.tables.spread(np.array(rates))
    return given


def _load(table: Table, guests: Guests) -> float:
    """What each of those gets who wait for a table's model."""
    best, load = table.best, table.attendance.load
    if best is None or load == 0 or guests.waiting is None:
        return 0.0
    joules = load * (table.joules / best.total + table.idle_per_ns)
    return joules / np.count_nonzero(guests.waiting[table.part])


def _account(settlement: Settlement, tables: Sequence[Table], guests: Guests) -> None:
    """Add up what the guests of each bin received."""
    sums = guests.tables.sums(settlement.parts[[ACTIVE, IDLE_SHARE, LOAD]]).T.tolist()
    for table, (active, idle_share, load) in zip(tables, sums, strict=True):
        posting = settlement.postings[table.bin]
        posting.active += active
        posting.idle_share += idle_share
        posting.load += load
