"""Divides the joules of one bin among the requests in service during it (pure)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from melodi.energy.attendance import Attendance, attendance
from melodi.energy.bins import NS_PER_SECOND, Bin
from melodi.energy.bounds import part_bounds
from melodi.energy.claims import Party, claim
from melodi.energy.columns import Mask, Rows, Vector, overlaps, union_within
from melodi.energy.policies import Policy
from melodi.energy.roster import END, LOAD_END, LOAD_START, START, Group, Guests

DOUBT_FITTED, DOUBT_UNFITTED = 0.015, 0.03
"""For every doubling of the requests in a bin, where costs were fitted and where they were not.

Chosen so that in simulation nine bounds in ten hold the truth (benchmarks, attribution)."""

CLAIM_DOUBT = 0.15
"""Part of what others got in a bin that may have been a model's own."""

ACTIVE, IDLE_SHARE, LOAD, PREFILL, LOW, HIGH, DOUBT, EXCLUSIVE_LOW, EXCLUSIVE_HIGH = range(9)
"""What a request receives from a bin, in joules. PREFILL is a part of ACTIVE; the bounds are
LOW and HIGH where one policy divides, else what every policy gives, with a DOUBT of its own."""
PARTS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known about a domain when one of its bins closes."""

    idle_watts: float | None
    """Power of the warm, idle domain; None: not learned yet."""
    max_watts: float | None
    shares: Mapping[str, float] | None = None
    """Each backend's part of the dynamic energy, 0..1; None: unknown."""
    exclusive: bool = False
    """Nobody else works on the domain."""

    @property
    def least_watts(self) -> float:
        """What the domain never falls below: its idle power, or nothing where that is unknown."""
        return 0.0 if self.idle_watts is None else self.idle_watts

    @property
    def all_ours(self) -> bool:
        """Whether nothing of the dynamic energy is known to be of others."""
        return self.exclusive or self.shares is None or sum(self.shares.values()) >= 1.0


@dataclass(slots=True)
class Settlement:
    """Where all joules of one bin went: parts + idle + foreign + unattributed = energy."""

    parts: Vector
    """A row for each of ACTIVE ... EXCLUSIVE_HIGH, a column for each guest."""
    by_policy: Vector
    """A row for each policy: what it would give, beside the bounds; 0 where those do alone.
    Then a row for each: the active joules that it divided."""
    alone: int | None = None
    """The guest beside whom nobody can have been in service: all active energy is its own."""
    idle: float = 0.0
    foreign: float = 0.0
    unattributed: float = 0.0
    unwatched: bool = False
    """Some went to a backend whose usage was not watched."""


@dataclass(slots=True)
class _Table:
    """Those of one model in a bin: who is in service, who waits, what their policies say."""

    group: Group
    members: "Rows | slice"
    waiting: Rows
    attendance: Attendance
    policies: Sequence[Policy]
    divisions: "list[_Division]" = field(default_factory=list)

    @property
    def party(self) -> Party:
        best = self.divisions[0] if self.divisions else None
        joules = best.total if best is not None and best.in_joules else None
        return Party(self.group, self.attendance.union, joules)


@dataclass(frozen=True, slots=True)
class _Division:
    """One policy's weights, of prefill and of decoding, for the members of a table."""

    policy: int
    weights: Vector
    total: float
    """Of all, and of a load if there is one."""
    in_joules: bool


_EVERYBODY = slice(None)
PoliciesOf = Callable[[Group], Sequence[Policy]]


def settle(
    bin_: Bin, guests: Guests, setting: Setting, *, groups: Sequence[Group], policies: PoliciesOf
) -> Settlement:
    """Post every joule of a measured bin to an account (MEASUREMENT: section 4, attribution).

    I = min(E, P_idle dt), D = E - I; with anybody in service each model of each backend has its
    claim A on D, active_i = A w_i / sum w in it, idle_share_i = I (u / dt) tau_i / sum tau over
    all; otherwise idle = I. The first of a model's policies that can weigh gives w; they learn
    from bins that the model had to itself before. Raises ValueError for a bin without energy.
    """
    if bin_.joules is None:
        raise ValueError("an unmeasured bin has no joules to divide; count its seconds instead")
    idle, dynamic = split(bin_, setting.least_watts)
    tables = _tables(bin_, guests, groups, policies) if len(guests) else []
    present = [one for one in tables if one.attendance.total > 0]
    for table in present:
        if len(present) == 1 and setting.all_ours:
            _teach(table, bin_, dynamic)
        table.divisions = _divisions(table)
    claims = claim(
        dynamic, [one.party for one in present], setting.shares, exclusive=setting.exclusive
    )
    kinds = len(tables[0].policies) if tables else 0
    settlement = Settlement(
        np.zeros((PARTS, len(guests))),
        np.zeros((2 * kinds, len(guests))),
        idle=idle,
        foreign=claims.foreign,
        unattributed=claims.unattributed,
        unwatched=claims.unwatched,
    )
    if present:
        used = idle * _union(present, guests, bin_) / bin_.length_ns
        settlement.idle = idle - used
        idle_per_ns = used / sum(one.attendance.total for one in present)
        for table, joules in zip(present, claims.joules, strict=True):
            _share_out(settlement, table, joules, idle_per_ns=idle_per_ns)
    _bound(settlement, bin_, guests, tables, setting, dynamic=dynamic)
    return settlement


def split(bin_: Bin, idle_watts: float) -> tuple[float, float]:
    """Idle floor and dynamic joules of a measured bin (I, D)."""
    assert bin_.joules is not None
    idle = min(bin_.joules, idle_watts * bin_.length_ns / NS_PER_SECOND)
    return idle, bin_.joules - idle


def _tables(
    bin_: Bin, guests: Guests, groups: Sequence[Group], policies: PoliciesOf
) -> list[_Table]:
    """Everybody who may have been in service, by model, edges taken with their uncertainty."""
    tables = []
    numbers = set(guests.group.tolist())
    for number in sorted(numbers):
        here = None if len(numbers) == 1 else guests.group == number
        served, waits = _both(here, guests.served), _both(here, guests.waiting)
        present = guests if served is None else guests.among(served)
        queue = None
        if guests.waiting is not None and waits is not None and waits.any():
            queue = guests.among(waits)
        tables.append(
            _Table(
                groups[number],
                _EVERYBODY if served is None else served.nonzero()[0],
                np.zeros(0, np.intp) if queue is None or waits is None else waits.nonzero()[0],
                attendance(present, bin_, waiting=queue),
                policies(groups[number]),
            )
        )
    return tables


def _both(one: Mask | None, other: Mask | None) -> Mask | None:
    """Those in both; None is everybody."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _teach(table: _Table, bin_: Bin, active: float) -> None:
    for policy in table.policies:
        policy.learn(bin_, table.attendance, active)


def _divisions(table: _Table) -> list[_Division]:
    """What every policy that knows enough would do, the preferred one first."""
    found: list[_Division] = []
    reluctant: list[_Division] = []
    for number, policy in enumerate(table.policies):
        weights = policy.weigh(table.attendance)
        total = 0.0 if weights is None else float(weights.sum()) + table.attendance.load
        if weights is not None and total > 0:
            divisions = reluctant if table.attendance.seats < policy.few else found
            divisions.append(_Division(number, weights, total, policy.in_joules))
    return found + reluctant


def _union(tables: Sequence[_Table], guests: Guests, bin_: Bin) -> float:
    """How long anybody was in service on the domain, or a model was loading."""
    if len(tables) == 1:
        return tables[0].attendance.union
    starts = np.concatenate((guests.times[START], guests.times[LOAD_START]))
    ends = np.concatenate((guests.times[END], guests.times[LOAD_END]))
    return union_within(starts, ends, float(bin_.length_ns))


def _share_out(settlement: Settlement, table: _Table, joules: float, *, idle_per_ns: float) -> None:
    """Give a table's joules to its members, and a load's to those who wait for it."""
    parts, members, taken = settlement.parts, table.members, table.attendance
    best = table.divisions[0]
    prefill, decode = best.weights * (joules / best.total)
    own_idle = idle_per_ns * taken.tau
    own = prefill + decode
    parts[ACTIVE, members] = own
    parts[PREFILL, members] = prefill
    parts[IDLE_SHARE, members] = own_idle
    kinds = len(table.policies)
    settlement.by_policy[kinds + best.policy, members] = own
    if len(table.divisions) > 1:
        settlement.by_policy[:kinds, members] = own + own_idle
        for one in table.divisions[1:]:
            whole = (one.weights[0] + one.weights[1]) * (joules / one.total)
            settlement.by_policy[one.policy, members] = whole + own_idle
    if taken.load > 0:
        load = taken.load * (joules / best.total + idle_per_ns)
        parts[LOAD, table.waiting] = load / len(table.waiting)


def _bound(
    settlement: Settlement,
    bin_: Bin,
    guests: Guests,
    tables: Sequence[_Table],
    setting: Setting,
    *,
    dynamic: float,
) -> None:
    """How far each part may be off."""
    parts = settlement.parts
    seats = sum(len(one.attendance.tau) + (len(one.waiting) > 0) for one in tables)
    for table in tables:
        members = table.members
        parts[EXCLUSIVE_HIGH, members] = dynamic
        if seats == 1 and setting.all_ours and len(table.attendance.tau):
            settlement.by_policy[: len(table.policies)] = 0.0
            one = 0 if isinstance(members, slice) else int(members[0])
            settlement.alone = _bound_alone(parts, bin_, guests, one, setting)
        elif len(table.divisions) > 1:
            own = parts[ACTIVE, members]
            fitted = table.divisions[0].in_joules
            doubt = _doubt(bin_, table.attendance.tau, seats, fitted=fitted)
            doubt += _claim_doubt(float(own.sum()), dynamic)
            parts[DOUBT, members] = own * doubt
        else:
            _bound_shared(parts, bin_, guests, members, setting, dynamic=dynamic, seats=seats)


def _doubt(bin_: Bin, tau: Vector, seats: int, *, fitted: bool) -> Vector:
    """How far a request's share of a bin may be off, as a part of it, whatever the policy.

    Policies err together, the more the more requests share a bin, and a request that came or
    left in the bin may have been in it for a half-width more or less.
    """
    half = max(1, bin_.half_width_ns)
    at_edge = (tau < bin_.length_ns) * (bin_.half_width_ns / np.maximum(tau, half))
    return at_edge + (DOUBT_FITTED if fitted else DOUBT_UNFITTED) * math.log2(seats)


def _claim_doubt(own: float, dynamic: float) -> float:
    """How far what a model got may be off because it was not the only one with a claim."""
    return 0.0 if own <= 0 else min(1.0, CLAIM_DOUBT * max(0.0, dynamic - own) / own)


def _bound_alone(
    parts: Vector, bin_: Bin, guests: Guests, one: int, setting: Setting
) -> int | None:
    """What one guest's part of the bin can hold; gives it back if it surely was in service.

    Its dynamic joules may be below 0 where the bin's edges make it seem longer than it was:
    cutting those off would keep the errors of the other bins, which these make up for.
    """
    assert bin_.joules is not None
    half, length = bin_.half_width_ns, bin_.length_ns
    start, end = guests.times.item(START, one), guests.times.item(END, one)
    shortest = max(0.0, min(max(end - half, start + half), length) - max(start + half, 0.0))
    longest = max(0.0, min(end + half, length) - max(start - half, 0.0))
    low, high = part_bounds(
        bin_.joules,
        length / NS_PER_SECOND,
        part_low_seconds=shortest / NS_PER_SECOND,
        part_high_seconds=longest / NS_PER_SECOND,
        min_watts=setting.least_watts,
        max_watts=setting.max_watts,
    )
    point = parts.item(ACTIVE, one) + parts.item(IDLE_SHARE, one)
    parts[LOW, one], parts[HIGH, one] = min(low, point), max(high, point)
    if shortest == 0:
        return None
    parts[EXCLUSIVE_LOW, one] = bin_.joules - setting.least_watts * length / NS_PER_SECOND
    return one


def _bound_shared(
    parts: Vector,
    bin_: Bin,
    guests: Guests,
    members: "Rows | slice",
    setting: Setting,
    *,
    dynamic: float,
    seats: int,
) -> None:
    """None or all of the dynamic energy; of the idle power an equal part or, at times, all."""
    half, length = bin_.half_width_ns, bin_.length_ns
    start, end = guests.times[START, members], guests.times[END, members]
    surely_end = np.minimum(np.maximum(end - half, start + half), length)
    shortest = np.maximum(surely_end - np.maximum(start + half, 0.0), 0.0)
    longest = overlaps(start - half, end + half, float(length))
    watts_ns = setting.least_watts / NS_PER_SECOND
    point = parts[ACTIVE, members] + parts[IDLE_SHARE, members]
    parts[LOW, members] = np.minimum(watts_ns * shortest / seats, point)
    parts[HIGH, members] = np.maximum(dynamic + watts_ns * longest, point)
