"""Divides the joules of one bin among the requests in service during it (pure)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from melodi.energy.bins import NS_PER_SECOND, Bin, Interval, Span, union_ns
from melodi.energy.bounds import part_bounds
from melodi.energy.policies import Policy, Weight, tokens_of

DOUBT_PER_DOUBLING = 0.015
"""Chosen so that in simulation nine bounds in ten hold the truth (benchmarks, attribution)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known about a domain when one of its bins closes."""

    idle_watts: float | None
    """Power of the warm, idle domain; None: not learned yet."""
    our_share: float | None
    """Share of the dynamic energy that belongs to our backends, 0..1; None: unknown."""
    max_watts: float | None

    @property
    def least_watts(self) -> float:
        """What the domain never falls below: its idle power, or nothing where that is unknown."""
        return 0.0 if self.idle_watts is None else self.idle_watts


@dataclass(slots=True, kw_only=True)
class Share:
    """What one request receives from one bin, in joules."""

    request: str
    active: float = 0.0
    idle_share: float = 0.0
    load: float = 0.0
    prefill: float = 0.0
    """The part of `active` that is of its prefill."""
    policy: str | None = None
    """Which policy divided the bin."""
    low: float = 0.0
    high: float = 0.0
    by_policy: dict[str, float] = field(default_factory=dict)
    """What each policy would give it, beside the bounds; empty where they hold without one."""
    doubt: float = 0.0
    """How far all policies together may be off."""
    alone: bool = False
    """Nobody else can have been in service: all active energy of the bin is its own."""
    exclusive_low: float = 0.0
    exclusive_high: float = 0.0


@dataclass(slots=True)
class Settlement:
    """Where all joules of one bin went: shares + idle + foreign + unattributed = energy."""

    shares: list[Share] = field(default_factory=list)
    idle: float = 0.0
    foreign: float = 0.0
    unattributed: float = 0.0
    divided: bool = True
    """False where idle is unknown: `active` then holds active and idle share together."""


@dataclass(frozen=True, slots=True)
class _Seat:
    """One claim on the bin: a request in service, or a model load and those who wait for it."""

    span: Span
    tau_ns: int
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Division:
    """One policy's weights for the seats of a bin."""

    policy: str
    weights: list[Weight]
    total: float

    def share(self, seat: int, joules: float) -> tuple[float, float]:
        """A seat's part of `joules`: of its prefill, and of all."""
        prefill, decode = self.weights[seat]
        return joules * prefill / self.total, joules * (prefill + decode) / self.total


def settle(
    bin_: Bin,
    spans: Sequence[Span],
    setting: Setting,
    policies: Sequence[Policy],
    *,
    learn: bool = True,
) -> Settlement:
    """Post every joule of a measured bin to an account (MEASUREMENT: section 4, attribution).

    I = min(E, P_idle dt), D = E - I, foreign = D (1 - s), A = D - foreign; with anybody in
    service active_i = A w_i / sum w and idle_share_i = I (u / dt) tau_i / sum tau, otherwise
    idle = I and unattributed = A. The first of `policies` that can weigh gives w; they learn
    from the bin before. Raises ValueError for a bin without energy.
    """
    if bin_.joules is None:
        raise ValueError("an unmeasured bin has no joules to divide; count its seconds instead")
    idle, active, foreign = split(bin_, setting)
    seats = _seats(bin_, spans)
    total_tau = sum(seat.tau_ns for seat in seats)
    settlement = Settlement(foreign=foreign, divided=setting.idle_watts is not None)
    divisions: list[_Division] = []
    shared_idle = 0.0
    if total_tau == 0:
        settlement.idle, settlement.unattributed = idle, active
    else:
        used_ns = union_ns(_clipped(seat.span.service, bin_) for seat in seats)
        shared_idle = idle * used_ns / bin_.length_ns
        settlement.idle = idle - shared_idle
        divisions = _divisions(bin_, seats, policies, learn=active if learn else None)
    for number, seat in enumerate(seats):
        own_idle = shared_idle * seat.tau_ns / total_tau if total_tau else 0.0
        parts = {one.policy: one.share(number, active) for one in divisions}
        if seat.waiting:
            _, own_active = parts[divisions[0].policy] if divisions else (0.0, 0.0)
            each = (own_active + own_idle) / len(seat.waiting)
            settlement.shares += [Share(request=name, load=each) for name in seat.waiting]
            continue
        if len(parts) > 1:
            preferred = parts[divisions[0].policy]
            parts |= {one.name: preferred for one in policies if one.name not in parts}
        settlement.shares.append(
            _share(bin_, seat, parts, own_idle, seats=len(seats), active=active, setting=setting)
        )
    return settlement


def split(bin_: Bin, setting: Setting) -> tuple[float, float, float]:
    """Idle floor, active and foreign joules of a measured bin (I, A, F)."""
    assert bin_.joules is not None
    idle = min(bin_.joules, setting.least_watts * bin_.length_ns / NS_PER_SECOND)
    dynamic = bin_.joules - idle
    foreign = dynamic * (1.0 - (1.0 if setting.our_share is None else setting.our_share))
    return idle, dynamic - foreign, foreign


def _divisions(
    bin_: Bin, seats: Sequence[_Seat], policies: Sequence[Policy], *, learn: float | None
) -> list[_Division]:
    """What every policy that knows enough would do, the preferred one first."""
    spans = [seat.span for seat in seats]
    tokens = tokens_of(bin_, spans)
    found: list[_Division] = []
    reluctant: list[_Division] = []
    for policy in policies:
        if learn is not None:
            policy.learn(tokens, learn)
        weights = policy.weigh(bin_, spans, tokens)
        total = 0.0 if weights is None else sum(prefill + decode for prefill, decode in weights)
        if weights is not None and total > 0:
            divisions = reluctant if len(seats) < policy.few else found
            divisions.append(_Division(policy.name, weights, total))
    return found + reluctant


def _seats(bin_: Bin, spans: Sequence[Span]) -> list[_Seat]:
    """Everybody who may have been in service, edges taken with their uncertainty."""
    seats = [
        _Seat(span, span.service.overlap_ns(bin_.start_ns, bin_.end_ns))
        for span in spans
        if _longest(span.service, bin_) > 0
    ]
    loads: dict[str, tuple[Interval, tuple[str, ...]]] = {}
    for span in spans:
        if span.load is None or _longest(span.load, bin_) == 0:
            continue
        load, waiting = loads.get(span.load_key, (span.load, ()))
        loads[span.load_key] = load.joined(span.load), (*waiting, span.request)
    for load, waiting in loads.values():
        tau_ns = load.overlap_ns(bin_.start_ns, bin_.end_ns)
        seats.append(_Seat(Span(waiting[0], load), tau_ns, waiting))
    return seats


def _share(
    bin_: Bin,
    seat: _Seat,
    parts: dict[str, tuple[float, float]],
    own_idle: float,
    *,
    seats: int,
    active: float,
    setting: Setting,
) -> Share:
    policy, (prefill, own_active) = next(iter(parts.items()), (None, (0.0, 0.0)))
    service = seat.span.service
    share = Share(
        request=seat.span.request,
        active=own_active,
        idle_share=own_idle,
        prefill=prefill,
        policy=policy,
        exclusive_high=active,
    )
    point = own_active + own_idle
    if seats > 1 and len(parts) > 1:
        share.by_policy = {name: part + own_idle for name, (_, part) in parts.items()}
        share.doubt = own_active * _doubt(bin_, seat.tau_ns, seats)
        return share
    if seats == 1:
        low, high = _bounds_alone(bin_, service, setting)
        share.alone = _shortest(service, bin_) > 0
    else:
        low, high = _bounds_shared(bin_, service, setting, active=active, seats=seats)
    share.low, share.high = min(low, point), max(high, point)
    share.exclusive_low = _surely_dynamic(bin_, setting) if share.alone else 0.0
    return share


def _doubt(bin_: Bin, tau_ns: int, seats: int) -> float:
    """How far a request's share of a bin may be off, as a part of it, whatever the policy.

    Policies err together, the more the more requests share a bin, and a request that came or
    left in the bin may have been in it for a half-width more or less.
    """
    at_edge = min(1.0, bin_.half_width_ns / tau_ns) if 0 < tau_ns < bin_.length_ns else 0.0
    return DOUBT_PER_DOUBLING * math.log2(seats) + at_edge


def _surely_dynamic(bin_: Bin, setting: Setting) -> float:
    """Our dynamic joules, below 0 where the bin's edges make it seem longer than it was.

    Cutting those off would keep the errors of the other bins, which these make up for.
    """
    assert bin_.joules is not None
    idle = setting.least_watts * bin_.length_ns / NS_PER_SECOND
    return (bin_.joules - idle) * (1.0 if setting.our_share is None else setting.our_share)


def _bounds_alone(bin_: Bin, service: Interval, setting: Setting) -> tuple[float, float]:
    """What its part of the bin can hold."""
    assert bin_.joules is not None
    return part_bounds(
        bin_.joules,
        bin_.length_ns / NS_PER_SECOND,
        part_low_seconds=_shortest(service, bin_) / NS_PER_SECOND,
        part_high_seconds=_longest(service, bin_) / NS_PER_SECOND,
        min_watts=setting.least_watts,
        max_watts=setting.max_watts,
    )


def _bounds_shared(
    bin_: Bin, service: Interval, setting: Setting, *, active: float, seats: int
) -> tuple[float, float]:
    """None or all of the active energy; of the idle power an equal part or, at times, all."""
    idle_watts = setting.least_watts
    least_idle = idle_watts * _shortest(service, bin_) / NS_PER_SECOND / seats
    most_idle = idle_watts * _longest(service, bin_) / NS_PER_SECOND
    return least_idle, active + most_idle


def _shortest(service: Interval, bin_: Bin) -> int:
    """How long the service overlaps the bin, at least: all edges taken to its disadvantage."""
    half_ns = bin_.half_width_ns
    end_ns = min(max(service.end_ns - half_ns, service.start_ns + half_ns), bin_.end_ns)
    return max(0, end_ns - max(service.start_ns + half_ns, bin_.start_ns))


def _longest(service: Interval, bin_: Bin) -> int:
    """How long the service overlaps the bin, at most."""
    half_ns = bin_.half_width_ns
    end_ns = min(service.end_ns + half_ns, bin_.end_ns)
    return max(0, end_ns - max(service.start_ns - half_ns, bin_.start_ns))


def _clipped(service: Interval, bin_: Bin) -> Interval:
    start_ns = max(service.start_ns, bin_.start_ns)
    return Interval(start_ns, max(start_ns, min(service.end_ns, bin_.end_ns)))
