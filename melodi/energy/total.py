"""Sums one request's domains into the figures of its record; a sum with an unknown is unknown."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from melodi.energy.record import DomainEnergy, EnergyRecord, Quality
from melodi.energy.tally import DomainFacts

KINDS = ("gpu", "cpu", "dram", "platform")
WORST_FIRST = tuple(reversed(Quality))
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


def charged(record: EnergyRecord, energy: RequestEnergy) -> EnergyRecord:
    """The record of a request with its energy."""
    tokens, joules = record.output_tokens, energy.energy_joules
    return replace(
        record,
        joules_per_output_token=joules / tokens if joules is not None and tokens else None,
        **{field.name: getattr(energy, field.name) for field in fields(RequestEnergy)},
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
    kinds = {facts[name].kind for name in domains}
    quality = next(
        word for word in WORST_FIRST if any(one.quality == word for one in domains.values())
    )
    reasons = {reason for one in domains.values() for reason in one.reasons}
    active = _sum(domains.values(), lambda one: one.active_joules)
    if active is None or prefill_joules is None:
        prefill_joules = None

    def of_kind(kind: str) -> float | None:
        chosen = [one for name, one in domains.items() if facts[name].kind == kind]
        return _sum(chosen, lambda one: one.joules) if chosen else None

    return RequestEnergy(
        origin=_one_origin(facts[name].origin for name in domains),
        footprint="+".join(kind for kind in KINDS if kind in kinds),
        energy_joules=_sum(domains.values(), lambda one: one.joules),
        active_joules=active,
        idle_share_joules=_sum(domains.values(), lambda one: one.idle_share_joules),
        load_joules=_sum(domains.values(), lambda one: one.load_joules),
        prefill_joules=prefill_joules,
        decode_joules=(
            None if active is None or prefill_joules is None else active - prefill_joules
        ),
        gpu_joules=of_kind("gpu"),
        cpu_joules=of_kind("cpu"),
        dram_joules=of_kind("dram"),
        low_joules=_sum(domains.values(), lambda one: one.low_joules),
        high_joules=_sum(domains.values(), lambda one: one.high_joules),
        exclusive_low_joules=_sum(domains.values(), lambda one: one.exclusive_low_joules),
        exclusive_high_joules=_sum(domains.values(), lambda one: one.exclusive_high_joules),
        sensor_uncertainty_ratio=_uncertainty(facts[name] for name in domains),
        domains=dict(domains),
        policy=policy[0],
        policy_version=policy[1],
        quality=quality,
        quality_reasons=tuple(sorted(reasons)),
        concurrency_mean=concurrency_mean,
    )


def _sum(
    domains: Iterable[DomainEnergy], pick: Callable[[DomainEnergy], float | None]
) -> float | None:
    """The sum, or None as soon as one part is unknown."""
    result = 0.0
    for domain in domains:
        part = pick(domain)
        if part is None:
            return None
        result += part
    return result


def _one_origin(origins: Iterable[str]) -> str:
    distinct = set(origins)
    if len(distinct) > 1:
        raise ValueError("a record cannot mix simulated and sensed domains; list its devices")
    return distinct.pop()


def _uncertainty(facts: Iterable[DomainFacts]) -> float | None:
    """The sensors' systematic error; exact for the simulator, unknown for an estimate."""
    known = list(facts)
    if any(one.estimated for one in known):
        return None
    return 0.0 if all(one.origin == "simulator" for one in known) else SENSOR_UNCERTAINTY
