"""What is added up over requests, and how: sums, how many were known, and histograms."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from melodi.store import histogram

Values = npt.NDArray[np.float64]
"""One number a request; NaN: unknown."""

_ABSURD = 1e100
"""No physical quantity is that large; past it sums would overflow."""

Tally = dict[str, Any]
"""Amounts over some requests by name; two of them add up by adding each amount to its like."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity of a request: the sum of the columns `top`, over the sum of those of `bottom`.

    A request in which one of them is unknown, or `bottom` is nothing, does not count.
    """

    name: str
    top: tuple[str, ...]
    bottom: tuple[str, ...] = ()
    spread: bool = False
    """Whether its percentiles are asked for."""

    @property
    def amounts(self) -> dict[str, type]:
        """What is kept of it, by name of the column."""
        kept: dict[str, type] = {f"{self.name}_known": int, f"{self.name}_sum": float}
        if self.bottom:
            kept[f"{self.name}_weight"] = float
        if self.spread:
            kept[f"{self.name}_histogram"] = bytes
        return kept

    def parts(self, columns: Mapping[str, Values]) -> tuple[Values, Values]:
        """Above and below of each request; of what has no `bottom` each counts 1."""
        top = _plus(columns[name] for name in self.top)
        bottom = _plus(columns[name] for name in self.bottom) if self.bottom else np.ones(len(top))
        return top, bottom


def are_known(top: Values, bottom: Values) -> npt.NDArray[np.bool_]:
    """Which requests count."""
    with np.errstate(all="ignore"):
        # Comparisons with what is unknown (NaN) are False, so that it is left out.
        return (bottom > 0) & (np.abs(top) < _ABSURD) & (np.abs(top / bottom) < _ABSURD)


MEASURES = (
    Measure("joules_per_request", ("energy_joules",), spread=True),
    Measure("joules_per_output_token", ("energy_joules",), ("output_tokens",), spread=True),
    Measure("joules_per_token", ("energy_joules",), ("input_tokens", "output_tokens"), spread=True),
    Measure("output_tokens_per_second", ("output_tokens",), ("duration_seconds",), spread=True),
    Measure("time_to_first_token_seconds", ("time_to_first_token_seconds",), spread=True),
    Measure("time_per_output_token_seconds", ("time_per_output_token_seconds",), spread=True),
    *(
        Measure(name, (name,))
        for name in (
            *("active_joules", "idle_share_joules", "load_joules"),
            *("prefill_joules", "decode_joules", "gpu_joules", "cpu_joules", "dram_joules"),
            *("duration_seconds", "input_tokens", "output_tokens", "cached_input_tokens"),
        )
    ),
)

AMOUNTS: dict[str, type] = {"count": int} | {
    name: kind for measure in MEASURES for name, kind in measure.amounts.items()
}
"""Every amount of a tally, and what it is: a count, a sum, or a histogram."""

INPUTS = tuple(dict.fromkeys(name for one in MEASURES for name in (*one.top, *one.bottom)))
"""The columns of a request that a tally is made from."""


def tally(values: Mapping[str, Sequence[float | None] | Values]) -> Tally:
    """The tally of some requests, given the values of each of INPUTS in their order."""
    columns = {name: np.asarray(values[name], dtype=np.float64) for name in INPUTS}
    found: Tally = {"count": len(columns[INPUTS[0]])}
    for measure in MEASURES:
        found |= _amounts(measure, columns)
    return found


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them added up."""
    rows = list(tallies)
    return {name: _sum(kind, [row[name] for row in rows]) for name, kind in AMOUNTS.items()}


def negated(one: Tally) -> Tally:
    """What takes `one` away when it is added."""
    return {
        name: histogram.negated(one[name]) if kind is bytes else -one[name]
        for name, kind in AMOUNTS.items()
    }


def _sum(kind: type, amounts: list[Any]) -> Any:
    return histogram.compact(b"".join(amounts)) if kind is bytes else sum(amounts, start=kind())


def _amounts(measure: Measure, columns: Mapping[str, Values]) -> Tally:
    top, bottom = measure.parts(columns)
    known = are_known(top, bottom)
    each = top[known] / bottom[known]
    found: Tally = {
        f"{measure.name}_known": int(known.sum()),
        f"{measure.name}_sum": float(top[known].sum()),
        f"{measure.name}_weight": float(bottom[known].sum()),
        f"{measure.name}_histogram": histogram.histogram(each) if measure.spread else b"",
    }
    return {name: found[name] for name in measure.amounts}


def _plus(columns: Iterable[Values]) -> Values:
    first, *others = columns
    return sum(others, start=first)
