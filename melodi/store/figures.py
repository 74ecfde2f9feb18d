"""The figures that people ask for, from what was added up; what is unknown stays None."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from melodi.energy.record import Quality
from melodi.store.histogram import quantile
from melodi.store.measures import MEASURES, Measure, Tally, total

_JOULES_PER_WATT_HOUR = 3600.0
_MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a kilowatt hour emits and costs; None: nobody said."""

    grams_per_kwh: float | None = None
    price_per_kwh: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A quantity over the requests of which it is known; sum and mean are exact."""

    known: int
    sum: float | None
    mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """As a Total, with percentiles over requests, each within `percentile_error_ratio`.

    The mean of a ratio is that of all: all joules over all tokens, not the mean of the ratios;
    `sum` is its upper part.
    """

    known: int
    sum: float | None
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The figures of the requests of one group; `by` holds what they have in common."""

    by: Mapping[str, str | None]
    started_at: datetime | None
    """When the bucket of a series begins; None where there are no buckets."""
    footprint: str | None
    origin: str | None
    count: int
    """Requests counted here; those in `left_out` are not."""
    qualities: Mapping[str, int]
    left_out: Mapping[str, int]
    """Requests whose quality was not asked for, by quality."""
    joules_per_request: Spread
    joules_per_output_token: Spread
    joules_per_token: Spread
    output_tokens_per_second: Spread
    time_to_first_token_seconds: Spread
    time_per_output_token_seconds: Spread
    active_joules: Total
    idle_share_joules: Total
    load_joules: Total
    prefill_joules: Total
    decode_joules: Total
    gpu_joules: Total
    cpu_joules: Total
    dram_joules: Total
    duration_seconds: Total
    input_tokens: Total
    output_tokens: Total
    cached_input_tokens: Total
    watt_hours: float | None
    grams_co2e: float | None
    cost: float | None
    watt_hours_per_million_tokens: float | None
    grams_co2e_per_million_tokens: float | None
    cost_per_million_tokens: float | None
    """Tokens are those of the prompt and those of the answer."""

    def flat(self) -> dict[str, Any]:
        """As the API shows it: what they have in common first, each by its own name."""
        rest = asdict(self)
        common = rest.pop("by")
        if self.started_at is None:
            del rest["started_at"]
        return {**common, **rest}


def group_of(
    counted: Mapping[Quality, Tally],
    left_out: Mapping[Quality, int],
    *,
    rates: Rates,
    **common: Any,
) -> Group:
    """The figures of what was counted, by quality; `common` are the first fields of Group."""
    whole = total(counted.values())
    figures: dict[str, Any] = {measure.name: _figure(measure, whole) for measure in MEASURES}
    figures |= _priced(figures["joules_per_request"], figures["joules_per_token"], rates)
    return Group(
        **common,
        count=whole["count"],
        qualities={quality.value: one["count"] for quality, one in sorted(counted.items())},
        left_out={quality.value: count for quality, count in sorted(left_out.items())},
        **figures,
    )


def _figure(measure: Measure, whole: Tally) -> Total | Spread:
    known, amount = whole[f"{measure.name}_known"], whole[f"{measure.name}_sum"]
    weight = whole[f"{measure.name}_weight"] if measure.bottom else known
    base: dict[str, Any] = {
        "known": known,
        "sum": amount if known else None,
        "mean": amount / weight if known else None,
    }
    if not measure.spread:
        return Total(**base)
    data = whole[f"{measure.name}_histogram"]
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return Spread(**base | {name: quantile(data, share) for name, share in shares.items()})


def _priced(energy: Spread, per_token: Spread, rates: Rates) -> dict[str, float | None]:
    hours = _times(energy.sum, 1 / _JOULES_PER_WATT_HOUR)
    per_million = _times(per_token.mean, _MILLION / _JOULES_PER_WATT_HOUR)
    found = {}
    for ending, watt_hours in (("", hours), ("_per_million_tokens", per_million)):
        found[f"watt_hours{ending}"] = watt_hours
        found[f"grams_co2e{ending}"] = _times(watt_hours, rates.grams_per_kwh, 1e-3)
        found[f"cost{ending}"] = _times(watt_hours, rates.price_per_kwh, 1e-3)
    return found


def _times(amount: float | None, factor: float | None, scale: float = 1.0) -> float | None:
    return None if amount is None or factor is None else amount * factor * scale
