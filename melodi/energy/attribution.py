"""Divides the joules of one bin among the requests in service during it (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from melodi.energy.bins import NS_PER_SECOND, Bin, Interval, Span, union_ns
from melodi.energy.bounds import part_bounds
from melodi.energy.policies import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known about a domain when one of its bins closes."""

    idle_watts: float | None
    """Power of the warm, idle domain; None: not learned yet."""
    our_share: float | None
    """Share of the dynamic energy that belongs to our backends, 0..1; None: unknown."""
    max_watts: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one request receives from one bin, in joules."""

    request: str
    active: float = 0.0
    idle_share: float = 0.0
    load: float = 0.0
    prefill: float = 0.0
    """The part of `active` before the first token; 0 where that was not seen."""
    low: float = 0.0
    high: float = 0.0
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
    """One claim on the bin: a request in service, or the model load it waits for."""

    span: Span
    loads: bool


def settle(bin_: Bin, spans: Sequence[Span], setting: Setting, policy: Policy) -> Settlement:
    """Post every joule of a measured bin to an account (MEASUREMENT: section 4, attribution).

    I = min(E, P_idle dt), D = E - I, foreign = D (1 - s), A = D - foreign; with anybody in
    service active_i = A w_i / sum w and idle_share_i = I (u / dt) tau_i / sum tau, otherwise
    idle = I and unattributed = A. Raises ValueError for a bin without energy.
    """
    if bin_.joules is None:
        raise ValueError("an unmeasured bin has no joules to divide; count its seconds instead")
    seconds = bin_.length_ns / NS_PER_SECOND
    idle_watts = setting.idle_watts
    idle = 0.0 if idle_watts is None else min(bin_.joules, idle_watts * seconds)
    dynamic = bin_.joules - idle
    foreign = dynamic * (1.0 - (1.0 if setting.our_share is None else setting.our_share))
    active = dynamic - foreign
    seats = _seats(bin_, spans)
    taus = [seat.span.service.overlap_ns(bin_.start_ns, bin_.end_ns) for seat in seats]
    total_tau = sum(taus)
    settlement = Settlement(foreign=foreign, divided=idle_watts is not None)
    shared_idle = 0.0
    if total_tau == 0:
        settlement.idle, settlement.unattributed = idle, active
    else:
        used_ns = union_ns(_clipped(seat.span.service, bin_) for seat in seats)
        shared_idle = idle * used_ns / bin_.length_ns
        settlement.idle = idle - shared_idle
    weights = policy.weigh(bin_, [seat.span for seat in seats])
    if sum(weights) == 0:
        weights = [float(tau) for tau in taus]
    total_weight = sum(weights)
    for seat, tau, weight in zip(seats, taus, weights, strict=True):
        own_active = active * weight / total_weight if total_weight else 0.0
        own_idle = shared_idle * tau / total_tau if total_tau else 0.0
        settlement.shares.append(
            _share(bin_, seat, seats, own_active, own_idle, active=active, setting=setting)
        )
    return settlement


def _seats(bin_: Bin, spans: Sequence[Span]) -> list[_Seat]:
    """Everybody who may have been in service, edges taken with their uncertainty."""
    seats = [_Seat(span, loads=False) for span in spans]
    seats += [
        _Seat(Span(span.request, span.load), loads=True) for span in spans if span.load is not None
    ]
    return [seat for seat in seats if _longest(seat.span.service, bin_) > 0]


def _share(
    bin_: Bin,
    seat: _Seat,
    seats: Sequence[_Seat],
    own_active: float,
    own_idle: float,
    *,
    active: float,
    setting: Setting,
) -> Share:
    span = seat.span
    if seat.loads:
        return Share(request=span.request, load=own_active + own_idle)
    surely = _shortest(span.service, bin_) > 0
    alone = len(seats) == 1
    if alone:
        low, high = _bounds_alone(bin_, span.service, setting)
    else:
        low, high = _bounds_shared(bin_, span.service, setting, active=active, seats=len(seats))
    point = own_active + own_idle
    return Share(
        request=span.request,
        active=own_active,
        idle_share=own_idle,
        prefill=_prefill(bin_, span, own_active),
        low=min(low, point),
        high=max(high, point),
        alone=alone and surely,
        exclusive_low=_surely_dynamic(bin_, setting) if alone and surely else 0.0,
        exclusive_high=active,
    )


def _surely_dynamic(bin_: Bin, setting: Setting) -> float:
    """Our dynamic joules, below 0 where the bin's edges make it seem longer than it was.

    Cutting those off would keep the errors of the other bins, which these make up for.
    """
    assert bin_.joules is not None
    idle = (setting.idle_watts or 0.0) * bin_.length_ns / NS_PER_SECOND
    return (bin_.joules - idle) * (1.0 if setting.our_share is None else setting.our_share)


def _bounds_alone(bin_: Bin, service: Interval, setting: Setting) -> tuple[float, float]:
    """What its part of the bin can hold."""
    assert bin_.joules is not None
    return part_bounds(
        bin_.joules,
        bin_.length_ns / NS_PER_SECOND,
        part_low_seconds=_shortest(service, bin_) / NS_PER_SECOND,
        part_high_seconds=_longest(service, bin_) / NS_PER_SECOND,
        min_watts=setting.idle_watts or 0.0,
        max_watts=setting.max_watts,
    )


def _bounds_shared(
    bin_: Bin, service: Interval, setting: Setting, *, active: float, seats: int
) -> tuple[float, float]:
    """None or all of the active energy; of the idle power an equal part or, at times, all."""
    idle_watts = setting.idle_watts or 0.0
    least_idle = idle_watts * _shortest(service, bin_) / NS_PER_SECOND / seats
    most_idle = idle_watts * _longest(service, bin_) / NS_PER_SECOND
    return least_idle, active + most_idle


def _prefill(bin_: Bin, span: Span, own_active: float) -> float:
    """The part of the active joules before the first token, by time in this bin."""
    if span.first_token_ns is None:
        return 0.0
    tau = span.service.overlap_ns(bin_.start_ns, bin_.end_ns)
    before = Interval(span.service.start_ns, max(span.service.start_ns, span.first_token_ns))
    return own_active * before.overlap_ns(bin_.start_ns, bin_.end_ns) / tau if tau else 0.0


def _shortest(service: Interval, bin_: Bin) -> int:
    return service.widened(-bin_.half_width_ns).overlap_ns(bin_.start_ns, bin_.end_ns)


def _longest(service: Interval, bin_: Bin) -> int:
    return service.widened(bin_.half_width_ns).overlap_ns(bin_.start_ns, bin_.end_ns)


def _clipped(service: Interval, bin_: Bin) -> Interval:
    start_ns = max(service.start_ns, bin_.start_ns)
    return Interval(start_ns, max(start_ns, min(service.end_ns, bin_.end_ns)))
