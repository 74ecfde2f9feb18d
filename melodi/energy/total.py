"""Sums requests' domains into the figures of their records; a sum with an unknown is unknown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np

from melodi.energy.columns import Mask, Vector
from melodi.energy.record import DomainEnergy, EnergyRecord, Quality
from melodi.energy.settlement import COMPANY, COVERED, PREFILL
from melodi.energy.tally import (
    UNKNOWN,
    DomainFacts,
    Figures,
    Reasons,
    Services,
    Tally,
    figures,
)

KINDS = ("gpu", "cpu", "dram", "platform")
_QUALITIES = tuple(Quality)
_SUMMED = KINDS[:3]
ACTIVE_SUM, PREFILL_SUM = 1, 4
"""Where these stand among the sums of all domains."""
SENSOR_UNCERTAINTY = 0.05
"""Systematic error of the sensor itself where nothing better is known (MEASUREMENT: section 4)."""


@dataclass(slots=True)
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
    concurrency_mean: float | None = None
    sensor_uncertainty_ratio: float | None = None
    domains: dict[str, DomainEnergy] = field(default_factory=dict)
    policy: str | None = None
    policy_version: int | None = None
    quality: Quality = Quality.NONE
    quality_reasons: tuple[str, ...] = ()


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
    places: tuple[list[int], ...]
    """Where the domains of each kind that has a sum of its own stand; empty: there are none."""
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
            tuple([k for k, one in enumerate(facts) if one.kind == kind] for kind in _SUMMED),
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
    """Add the domains of each request up; prefill is unknown where no first token was seen, and
    where nothing was measured of it beside the rest: that it took no energy is not known.

    `policies` are names and versions, in the order of the tally's.
    """
    found = figures(tally, services, reasons)
    most = tally.divided.sum(axis=1).argmax(axis=0).tolist()
    names, domains = [one.name for one in tally.facts], _domains(tally, found, reasons)
    sums = _sums(tally, found.table, footprint, services.first_seen)
    unsplit = services.first_seen & np.isnan(sums[PREFILL_SUM]) & ~np.isnan(sums[ACTIVE_SUM])
    bits = np.bitwise_or.reduce(found.reasons, axis=0) | unsplit * reasons.bits("prefill_unknown")
    energies = map(
        RequestEnergy,
        repeat(footprint.origin),
        repeat(footprint.name),
        *_plain(sums),
        repeat(footprint.uncertainty),
        (dict(zip(names, domains, strict=False)) for _ in repeat(None)),
        *zip(*(policies[one] for one in most), strict=True),
        map(_QUALITIES.__getitem__, found.ranks.max(axis=0).tolist()),
        map(reasons.words, bits.tolist()),
    )
    served = services.served | (tally.sums[COVERED] > 0).any(axis=0)
    for energy, was_served in zip(energies, served.tolist(), strict=True):
        yield energy if was_served else unmeasured("not_served")


def _domains(tally: Tally, found: Figures, reasons: Reasons) -> Iterator[DomainEnergy]:
    """What the records say of each domain, those of one record after the other."""
    facts = list(tally.told())
    return map(
        DomainEnergy,
        [one.scope for one in facts],
        [one.source for one in facts],
        *_plain(found.table.transpose(0, 2, 1).reshape(len(found.table), -1)),
        map(_QUALITIES.__getitem__, found.ranks.T.ravel().tolist()),
        map(reasons.words, found.reasons.T.ravel().tolist()),
    )


def _sums(tally: Tally, table: Vector, footprint: Footprint, first_seen: Mask) -> Vector:
    """What each record says of all domains together, in the order of its fields."""
    energy, active, idle_share, load, *bounds, _ = table.sum(axis=1)
    prefill = tally.sums[PREFILL].sum(axis=0)
    split = first_seen & ((prefill > 0) | (active == 0))
    prefill = np.where(split & ~np.isnan(active), prefill, UNKNOWN)
    of_kinds = [
        table[0, places].sum(axis=0) if places else np.full_like(energy, UNKNOWN)
        for places in footprint.places
    ]
    phases = (prefill, active - prefill)
    company = _concurrency(tally)
    return np.array((energy, active, idle_share, load, *phases, *of_kinds, *bounds, company))


def _concurrency(tally: Tally) -> Vector:
    """Mean number of requests in service while each was, where its bins were measured best."""
    covered = tally.sums[COVERED]
    best = covered.argmax(axis=0), np.arange(covered.shape[1])
    mean: Vector = np.full(covered.shape[1], UNKNOWN)
    np.divide(tally.sums[COMPANY][best], covered[best], out=mean, where=covered[best] > 0)
    return mean


def _plain(table: Vector) -> list[list[float | None]]:
    """The same rows as lists, None where a number is unknown."""
    unknown = np.isnan(table.sum(axis=1)).tolist()
    return [
        [None if one != one else one for one in row] if some else row
        for row, some in zip(table.tolist(), unknown, strict=True)
    ]
