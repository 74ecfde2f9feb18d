"""Sums one request's domains into the figures of its record; a sum with an unknown is unknown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

from melodi.energy.record import DomainEnergy, EnergyRecord, Quality
from melodi.energy.tally import DomainFacts

KINDS = ("gpu", "cpu", "dram", "platform")
_RANKS = {word: rank for rank, word in enumerate(Quality)}
_PARTS = attrgetter(
    *("joules", "active_joules", "idle_share_joules", "load_joules", "low_joules", "high_joules"),
    *("exclusive_low_joules", "exclusive_high_joules"),
)
SENSOR_UNCERTAINTY = 0.05
"""Systematic error of the sensor itself where nothing better is known (MEASUREMENT: section 4)."""


@dataclass(slots=True, kw_only=True)
class RequestEnergy:
    """One request's energy over its footprint; names and units are those of the record.

    As little to be changed as a record, and as little frozen.
    """

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
_COSTS_OF = attrgetter(*_COSTS)


def costs(energy: RequestEnergy, output_tokens: int | None) -> dict[str, Any]:
    """The fields of a record that its energy fills."""
    joules = energy.energy_joules
    each = joules / output_tokens if joules is not None and output_tokens else None
    return dict(zip(_COSTS, _COSTS_OF(energy), strict=True), joules_per_output_token=each)


def charged(record: EnergyRecord, energy: RequestEnergy) -> EnergyRecord:
    """The record of a request with its energy."""
    return replace(record, **costs(energy, record.output_tokens))


@dataclass(frozen=True, slots=True)
class Footprint:
    """The domains that a request runs on, and what is said of them together.

    They must not contain each other (the daemon offers summable ones only).
    """

    origin: str
    name: str
    domains: Mapping[str, tuple[str, ...]]
    """The names of the domains by kind."""
    uncertainty: float | None
    """The sensors' systematic error; exact for the simulator, unknown for an estimate."""

    @classmethod
    def of(cls, facts: Sequence[DomainFacts]) -> "Footprint":
        """Raises ValueError where simulated and sensed domains would be mixed."""
        origins = {one.origin for one in facts}
        if len(origins) > 1:
            raise ValueError("a record cannot mix simulated and sensed domains; list its devices")
        kinds = {one.kind for one in facts}
        origin = origins.pop()
        uncertainty = 0.0 if origin == "simulator" else SENSOR_UNCERTAINTY
        return cls(
            origin,
            "+".join(kind for kind in KINDS if kind in kinds),
            {kind: tuple(one.name for one in facts if one.kind == kind) for kind in kinds},
            None if any(one.estimated for one in facts) else uncertainty,
        )


def total(
    domains: Mapping[str, DomainEnergy],
    footprint: Footprint,
    *,
    prefill_joules: float | None,
    policy: tuple[str, int],
    concurrency_mean: float | None,
) -> RequestEnergy:
    """Add the domains up; `prefill_joules` is None where the first token was not seen."""
    quality = max((one.quality for one in domains.values()), key=_RANKS.__getitem__)
    reasons = {reason for one in domains.values() for reason in one.reasons}
    sums = [_sum(parts) for parts in zip(*map(_PARTS, domains.values()), strict=True)]
    energy, active, idle_share, load, low, high, exclusive_low, exclusive_high = sums
    if active is None:
        prefill_joules = None
    of_kind = {
        kind: _sum([domains[name].joules for name in names])
        for kind, names in footprint.domains.items()
    }
    return RequestEnergy(
        origin=footprint.origin,
        footprint=footprint.name,
        energy_joules=energy,
        active_joules=active,
        idle_share_joules=idle_share,
        load_joules=load,
        prefill_joules=prefill_joules,
        decode_joules=(
            None if active is None or prefill_joules is None else active - prefill_joules
        ),
        gpu_joules=of_kind.get("gpu"),
        cpu_joules=of_kind.get("cpu"),
        dram_joules=of_kind.get("dram"),
        low_joules=low,
        high_joules=high,
        exclusive_low_joules=exclusive_low,
        exclusive_high_joules=exclusive_high,
        sensor_uncertainty_ratio=footprint.uncertainty,
        domains=dict(domains),
        policy=policy[0],
        policy_version=policy[1],
        quality=quality,
        quality_reasons=tuple(sorted(reasons)),
        concurrency_mean=concurrency_mean,
    )


def _sum(parts: Sequence[float | None]) -> float | None:
    """The sum, or None as soon as one part is unknown."""
    return None if None in parts else sum(parts)  # type: ignore[arg-type]
