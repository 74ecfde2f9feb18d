"""Sums one request's domains into the figures of its record; a sum with an unknown is unknown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter

from melodi.energy.record import DomainEnergy, EnergyRecord, Quality
from melodi.energy.tally import DomainFacts

KINDS = ("gpu", "cpu", "dram", "platform")
BEST_FIRST = tuple(Quality)
PARTS = attrgetter(
    *("joules", "active_joules", "idle_share_joules", "load_joules", "low_joules", "high_joules"),
    *("exclusive_low_joules", "exclusive_high_joules"),
)
SENSOR_UNCERTAINTY = 0.05
"""Systematic error of the sensor itself where nothing better is known (MEASUREMENT: section 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnergy:
    """One request's energy over its footprint; names and units are those of the record."""

    origin: str | None = None
    footprint: str | None = None
    energy_joules: float | None = None
    active_joules: float | None = None
    idle_share_joules: float | None = None
    load_joules: float | None = None
    prefill_joules: float | None = None
    decode_joules: float | None = None
    gpu_joules: float | None = None
    cpu_joules: float | None = None
    dram_joules: float | None = None
    low_joules: float | None = None
    high_joules: float | None = None
    exclusive_low_joules: float | None = None
    exclusive_high_joules: float | None = None
    sensor_uncertainty_ratio: float | None = None
    domains: dict[str, DomainEnergy] = field(default_factory=dict)
    policy: str | None = None
    policy_version: int | None = None
    quality: Quality = Quality.NONE
    quality_reasons: tuple[str, ...] = ()
    concurrency_mean: float | None = None


def unmeasured(reason: str) -> RequestEnergy:
    """The energy of a request that nothing measured, and why."""
    return RequestEnergy(quality_reasons=(reason,))


_COSTS = tuple(field.name for field in fields(RequestEnergy))


def charged(record: EnergyRecord, energy: RequestEnergy) -> EnergyRecord:
    """The record of a request with its energy."""
    tokens, joules = record.output_tokens, energy.energy_joules
    return replace(
        record,
        joules_per_output_token=joules / tokens if joules is not None and tokens else None,
        **{name: getattr(energy, name) for name in _COSTS},
    )


def total(
    domains: Mapping[str, DomainEnergy],
    facts: Mapping[str, DomainFacts],
    *,
    prefill_joules: float | None,
    policy: tuple[str, int],
    concurrency_mean: float | None,
) -> RequestEnergy:
    """Add the domains up; `prefill_joules` is None where the first token was not seen.

    The domains must not contain each other (the daemon offers summable ones only).
    """
    known = [facts[name] for name in domains]
    kinds = {one.kind for one in known}
    quality = max((one.quality for one in domains.values()), key=BEST_FIRST.index)
    reasons = set().union(*(one.reasons for one in domains.values()))
    sums = [_sum(parts) for parts in zip(*map(PARTS, domains.values()), strict=True)]
    energy, active, idle_share, load, low, high, exclusive_low, exclusive_high = sums
    if active is None:
        prefill_joules = None

    def of_kind(kind: str) -> float | None:
        if kind not in kinds:
            return None
        return _sum([one.joules for name, one in domains.items() if facts[name].kind == kind])

    return RequestEnergy(
        origin=_one_origin({one.origin for one in known}),
        footprint="+".join(kind for kind in KINDS if kind in kinds),
        energy_joules=energy,
        active_joules=active,
        idle_share_joules=idle_share,
        load_joules=load,
        prefill_joules=prefill_joules,
        decode_joules=(
            None if active is None or prefill_joules is None else active - prefill_joules
        ),
        gpu_joules=of_kind("gpu"),
        cpu_joules=of_kind("cpu"),
        dram_joules=of_kind("dram"),
        low_joules=low,
        high_joules=high,
        exclusive_low_joules=exclusive_low,
        exclusive_high_joules=exclusive_high,
        sensor_uncertainty_ratio=_uncertainty(known),
        domains=dict(domains),
        policy=policy[0],
        policy_version=policy[1],
        quality=quality,
        quality_reasons=tuple(sorted(reasons)),
        concurrency_mean=concurrency_mean,
    )


def _sum(parts: Sequence[float | None]) -> float | None:
    """The sum, or None as soon as one part is unknown."""
    known = [one for one in parts if one is not None]
    return sum(known) if len(known) == len(parts) else None


def _one_origin(origins: set[str]) -> str:
    if len(origins) > 1:
        raise ValueError("a record cannot mix simulated and sensed domains; list its devices")
    return origins.pop()


def _uncertainty(known: Sequence[DomainFacts]) -> float | None:
    """The sensors' systematic error; exact for the simulator, unknown for an estimate."""
    if any(one.estimated for one in known):
        return None
    return 0.0 if all(one.origin == "simulator" for one in known) else SENSOR_UNCERTAINTY
