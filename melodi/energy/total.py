"""Sums requests' domains into the figures of their records; a sum with an unknown is unknown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from operator import attrgetter, or_
from typing import Any

import numpy as np
import numpy.typing as npt

from melodi.energy.columns import Mask, Vector
from melodi.energy.record import DomainEnergy, EnergyRecord, Quality
from melodi.energy.settlement import COMPANY, COVERED, PREFILL
from melodi.energy.tally import (
    FIGURES,
    UNKNOWN,
    DomainFacts,
    Reasons,
    Services,
    Tally,
    figures,
)

KINDS = ("gpu", "cpu", "dram", "platform")
_QUALITIES = tuple(Quality)
_SUMS = ("energy_joules", *FIGURES[1:-1], "prefill_joules", "decode_joules", "concurrency_mean")
_SUMS_OF_KINDS = {"gpu": "gpu_joules", "cpu": "cpu_joules", "dram": "dram_joules"}
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
    sums: tuple[str, ...]
    """The figures of a record that add up its domains: of all, then of each kind."""
    places: tuple[list[int], ...]
    """Where the domains of each kind stand."""
    uncertainty: float | None
    """The sensors' systematic error; exact for the simulator, unknown for an estimate."""

    @classmethod
    def of(cls, facts: Sequence[DomainFacts]) -> "Footprint":
        """Raises ValueError where simulated and sensed domains would be mixed."""
        origins = {one.origin for one in facts}
        if len(origins) > 1:
            raise ValueError("a record cannot mix simulated and sensed domains; list its devices")
        kinds = {one.kind for one in facts}
        summed = [kind for kind in _SUMS_OF_KINDS if kind in kinds]
        origin = origins.pop()
        uncertainty = 0.0 if origin == "simulator" else SENSOR_UNCERTAINTY
        return cls(
            origin,
            "+".join(kind for kind in KINDS if kind in kinds),
            (*_SUMS, *(_SUMS_OF_KINDS[kind] for kind in summed)),
            tuple([k for k, one in enumerate(facts) if one.kind == kind] for kind in summed),
            None if any(one.estimated for one in facts) else uncertainty,
        )


def totals(
    tally: Tally,
    services: Services,
    footprint: Footprint,
    *,
    policies: Sequence[tuple[str, int]],
    reasons: Reasons,
) -> Iterator[RequestEnergy]:
    """Add the domains of each request up; prefill is unknown where no first token was seen.

    `policies` are names and versions, in the order of the tally's.
    """
    found = figures(tally, services, reasons)
    requests = zip(
        _plain(found.table.transpose(2, 1, 0)),
        _plain(_sums(tally, found.table, footprint, services.first_seen).T),
        found.ranks.T.tolist(),
        found.reasons.T.tolist(),
        tally.divided.sum(axis=1).argmax(axis=0).tolist(),
        strict=True,
    )
    served = services.served | (tally.sums[COVERED] > 0).any(axis=0)
    for number, (parts, sums, ranks, bits, most) in enumerate(requests):
        if not served[number]:
            yield unmeasured("not_served")
            continue
        domains = {
            facts.name: _domain(facts, part, _QUALITIES[rank], reasons.words(why))
            for facts, part, rank, why in zip(tally.told(number), parts, ranks, bits, strict=True)
        }
        yield RequestEnergy(
            origin=footprint.origin,
            footprint=footprint.name,
            sensor_uncertainty_ratio=footprint.uncertainty,
            domains=domains,
            policy=policies[most][0],
            policy_version=policies[most][1],
            quality=_QUALITIES[max(ranks)],
            quality_reasons=reasons.words(reduce(or_, bits)),
            **dict(zip(footprint.sums, sums, strict=True)),
        )


def _domain(
    facts: DomainFacts, part: Sequence[float | None], quality: Quality, reasons: tuple[str, ...]
) -> DomainEnergy:
    """What a record says of a domain; `part` is in the order of FIGURES."""
    joules, active, idle_share, load, low, high, exclusive_low, exclusive_high, idle_watts = part
    return DomainEnergy(
        scope=facts.scope,
        source=facts.source,
        joules=joules,
        active_joules=active,
        idle_share_joules=idle_share,
        load_joules=load,
        low_joules=low,
        high_joules=high,
        exclusive_low_joules=exclusive_low,
        exclusive_high_joules=exclusive_high,
        idle_watts=idle_watts,
        quality=quality,
        reasons=reasons,
    )


def _sums(tally: Tally, table: Vector, footprint: Footprint, first_seen: Mask) -> Vector:
    """What each record says of all domains together, in the order of the footprint's sums."""
    sums = table[:-1].sum(axis=1)
    active = sums[FIGURES.index("active_joules")]
    split = first_seen & ~np.isnan(active)
    prefill = np.where(split, tally.sums[PREFILL].sum(axis=0), UNKNOWN)
    of_kinds = [table[0, places].sum(axis=0) for places in footprint.places]
    return np.array((*sums, prefill, active - prefill, _concurrency(tally), *of_kinds))


def _concurrency(tally: Tally) -> Vector:
    """Mean number of requests in service while each was, where its bins were measured best."""
    covered = tally.sums[COVERED]
    best = covered.argmax(axis=0), np.arange(covered.shape[1])
    mean: Vector = np.full(covered.shape[1], UNKNOWN)
    np.divide(tally.sums[COMPANY][best], covered[best], out=mean, where=covered[best] > 0)
    return mean


def _plain(table: Vector) -> list[Any]:
    """The same numbers as lists, None where they are unknown."""
    unknown = np.isnan(table)
    known: npt.NDArray[Any] = table
    if unknown.any():
        known = table.astype(object)
        known[unknown] = None
    plain: list[Any] = known.tolist()
    return plain
