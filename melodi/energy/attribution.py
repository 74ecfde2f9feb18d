"""Divides the joules of bins among the requests in service during them (pure)."""

from collections.abc import Sequence
from operator import mul

import numpy as np

from melodi.energy.attendance import Deeds, attendances
from melodi.energy.bounds import bound
from melodi.energy.claims import claim
from melodi.energy.columns import union_within
from melodi.energy.roster import END, LOAD_END, LOAD_START, START, Guests
from melodi.energy.settlement import (
    ACTIVE,
    IDLE_SHARE,
    LOAD,
    POLICIES,
    PREFILL,
    Case,
    Division,
    Posting,
    Setting,
    Settlement,
    Table,
)
from melodi.energy.work import EARLY


def settle(cases: Sequence[Case], guests: Guests, *, kinds: int) -> Settlement:
    """Post every joule of measured bins to an account (MEASUREMENT: section 4, attribution).

    I = min(E, P_idle dt), D = E - I; with anybody in service each model of each backend has its
    claim A on D, active_i = A w_i / sum w in it, idle_share_i = I (u / dt) tau_i / sum tau over
    all; otherwise idle = I. The first of a model's policies that can weigh gives w; they learn
    from bins that the model had to itself before. The bins are of different domains: none hangs
    on another. `kinds` is the number of policies. Raises ValueError for a bin without energy.
    """
    tables, deeds = _tables(cases, guests)
    seated: list[list[Table]] = [[] for _ in cases]
    for table in tables:
        seated[table.bin].append(table)
    postings = [_post(case, some, guests) for case, some in zip(cases, seated, strict=True)]
    settlement = Settlement(postings, np.zeros((POLICIES + 2 * kinds, len(guests))))
    if deeds is not None:
        _share_out(settlement, tables, guests, deeds)
        _account(settlement, tables, guests)
        bound(settlement, cases, tables, guests)
    return settlement


def _tables(cases: Sequence[Case], guests: Guests) -> tuple[list[Table], Deeds | None]:
    """Everybody who may have been in service, by bin and model, and what each did."""
    if not len(guests):
        return [], None
    numbers = guests.bin[guests.tables.starts].tolist()
    engines = [
        cases[number].setting.engines.get(group.backend)
        for number, group in zip(numbers, guests.groups, strict=True)
    ]
    taken, deeds = attendances(guests, engines)
    return [
        Table(number, part, group, attendance, cases[number].policies(group))
        for number, part, group, attendance in zip(
            numbers, guests.tables.parts, guests.groups, taken, strict=True
        )
    ], deeds


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
    _seat(tables, guests, setting)
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


def _seat(tables: Sequence[Table], guests: Guests, setting: Setting) -> None:
    """Count those who may have taken part in a bin, with those who wait for a load as one more."""
    waiting = guests.waiting
    seats = sum(
        one.attendance.served + (waiting is not None and bool(waiting[one.part].any()))
        for one in tables
    )
    for table in tables:
        table.seats = seats
        table.alone = seats == 1 and setting.all_ours and table.attendance.served > 0


def _divisions(table: Table) -> list[Division]:
    """What every policy that knows enough would do, the preferred one first."""
    found: list[Division] = []
    reluctant: list[Division] = []
    group = table.attendance
    for number, policy in enumerate(table.policies):
        prices = policy.prices(group)
        total = 0.0 if prices is None else sum(map(mul, prices, group.done)) + group.load
        if prices is not None and total > 0:
            divisions = reluctant if group.seats < policy.few else found
            divisions.append(Division(number, prices, total, policy.in_joules))
    return found + reluctant


def _union(present: Sequence[Table], guests: Guests, length_ns: int) -> float:
    """How long anybody was in service on the domain, or a model was loading."""
    if len(present) == 1:
        return present[0].attendance.union
    here = slice(present[0].part.start, present[-1].part.stop)
    starts = np.concatenate((guests.times[START, here], guests.times[LOAD_START, here]))
    ends = np.concatenate((guests.times[END, here], guests.times[LOAD_END, here]))
    return union_within(starts, ends, float(length_ns))


def _share_out(
    settlement: Settlement, tables: Sequence[Table], guests: Guests, deeds: Deeds
) -> None:
    """Give each table's joules to its members, and a load's to those who wait for it."""
    sums, spread, kinds = settlement.sums, guests.tables.spread, range(settlement.kinds)
    sums[IDLE_SHARE] = spread(np.array([one.idle_per_ns for one in tables])) * guests.tau
    best = [-1 if one.best is None else one.best.policy for one in tables]
    chosen = np.equal.outer(kinds, best)
    rates = np.array([[_rates(one, kind) for one in tables] for kind in kinds]).transpose(0, 2, 1)
    given = (spread(rates) * deeds.done).sum(axis=1)
    settlement.divided[:] = given * spread(chosen)
    sums[ACTIVE] = settlement.divided.sum(axis=0)
    first = (rates[:, :EARLY] * chosen[:, None]).sum(axis=0)
    sums[PREFILL] = (spread(first) * deeds.early).sum(axis=0)
    several = [one.several for one in tables]
    if any(several):
        settlement.by_policy[:] = (given + sums[IDLE_SHARE]) * spread(np.array(several))
    if guests.waiting is not None:
        sums[LOAD] = spread(np.array([_load(one, guests) for one in tables])) * guests.waiting


def _rates(table: Table, policy: int) -> Sequence[float]:
    """Joules for a unit of what a table's members did, by a policy, or by the best instead."""
    one = table.by(policy)
    if one is None:
        return _NOTHING
    each = table.joules / one.total
    return [each * price for price in one.prices]


_NOTHING = (0.0,) * 5


def _load(table: Table, guests: Guests) -> float:
    """What each of those gets who wait for a table's model."""
    best, load = table.best, table.attendance.load
    if best is None or load == 0 or guests.waiting is None:
        return 0.0
    joules = load * (table.joules / best.total + table.idle_per_ns)
    return joules / np.count_nonzero(guests.waiting[table.part])


def _account(settlement: Settlement, tables: Sequence[Table], guests: Guests) -> None:
    """Add up what the guests of each bin received."""
    sums = guests.tables.sums(settlement.sums[: LOAD + 1]).T.tolist()
    for table, (active, idle_share, load) in zip(tables, sums, strict=True):
        posting = settlement.postings[table.bin]
        posting.active += active
        posting.idle_share += idle_share
        posting.load += load
