"""How the active energy of a bin is shared by the requests in it."""

from collections.abc import Sequence
from typing import Protocol

from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.steps import StepCosts
from melodi.energy.work import NOTHING, Tokens

PREFILL_WEIGHT = 0.1
"""Energy of a prefill token to that of a decoded one, where it was not fitted (kappa)."""
FEW = 8
"""In simulation tokens beat time from about this many requests in a bin on."""

Weight = tuple[float, float]
"""What a request counts for in a bin, by its prefill and by its decoding; never negative."""


class Policy(Protocol):
    """A named rule that gives every span in a bin its weight, in order.

    `tokens` says what each did in the bin; None where that is not known of somebody.
    `learn` takes the active joules of each bin, once and in order, before it is weighed.
    `weigh` gives None where it knows too little. Below `few` requests in a bin the policies
    after it are taken first, if they can weigh: its result still counts for the bounds.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def few(self) -> int: ...

    def learn(self, tokens: Sequence[Tokens] | None, active_joules: float) -> None: ...

    def weigh(
        self, bin_: Bin, spans: Sequence[Span], tokens: Sequence[Tokens] | None
    ) -> list[Weight] | None: ...


class ByTime:
    """By time in service; exact for one request at a time."""

    name, version, few = "time", 1, 0

    def learn(self, tokens: Sequence[Tokens] | None, active_joules: float) -> None:
        """Nothing hangs on what was seen before."""

    def weigh(
        self,
        bin_: Bin,
        spans: Sequence[Span],
        tokens: Sequence[Tokens] | None,  # noqa: ARG002
    ) -> list[Weight] | None:
        return [_time_weight(bin_, span) for span in spans]


class ByTokens:
    """By tokens: 0.1 x prefill tokens that were not cached + decoded tokens."""

    name, version = "tokens", 1

    def __init__(self, *, few: int = 0) -> None:
        self.few = few

    def learn(self, tokens: Sequence[Tokens] | None, active_joules: float) -> None:
        """The weight of a prefill token is fixed: fitting it alone loses to that."""

    def weigh(
        self,
        bin_: Bin,  # noqa: ARG002
        spans: Sequence[Span],  # noqa: ARG002
        tokens: Sequence[Tokens] | None,
    ) -> list[Weight] | None:
        if tokens is None:
            return None
        return [(PREFILL_WEIGHT * one.prefill, one.decode) for one in tokens]


class BySteps:
    """The fixed cost of each engine step to those in it, the rest by own work, as fitted."""

    name, version, few = "steps", 1, 0

    def __init__(self) -> None:
        self._costs = StepCosts()

    def learn(self, tokens: Sequence[Tokens] | None, active_joules: float) -> None:
        if tokens:
            self._costs.learn(tokens, active_joules)

    def weigh(
        self,
        bin_: Bin,  # noqa: ARG002
        spans: Sequence[Span],  # noqa: ARG002
        tokens: Sequence[Tokens] | None,
    ) -> list[Weight] | None:
        return None if tokens is None else self._costs.weigh(tokens)


def _time_weight(bin_: Bin, span: Span) -> Weight:
    """Time before the first token, and after it; all is decoding where that was not seen."""
    service = span.service
    first_ns = service.start_ns if span.first_token_ns is None else span.first_token_ns
    prefill = Interval(service.start_ns, max(service.start_ns, min(first_ns, service.end_ns)))
    before_ns = prefill.overlap_ns(bin_.start_ns, bin_.end_ns)
    return before_ns, service.overlap_ns(bin_.start_ns, bin_.end_ns) - before_ns


def tokens_of(bin_: Bin, spans: Sequence[Span]) -> list[Tokens] | None:
    """What each span did in the bin; None where the tokens of one are not known.

    A model load is nobody's tokens: with one in the bin nothing can be weighed by tokens.
    """
    found: list[Tokens] = []
    for span in spans:
        service = span.service
        if service.overlap_ns(bin_.start_ns, bin_.end_ns) == 0:
            found.append(NOTHING)
        elif span.work is None:
            return None
        else:
            ends = (service.start_ns, service.end_ns)
            first_ns = span.first_token_ns
            found.append(
                span.work.within(bin_.start_ns, bin_.end_ns, service=ends, first_ns=first_ns)
            )
    return found


def policies_for(name: str) -> tuple[Policy, ...]:
    """Fresh policies in order of preference, the last of which can always weigh.

    `auto` is steps, then tokens, then time. Raises ValueError with the known names.
    """
    if name == "auto":
        return BySteps(), ByTokens(few=FEW), ByTime()
    everything: tuple[Policy, ...] = (BySteps(), ByTokens(), ByTime())
    names = [policy.name for policy in everything]
    if name not in names:
        raise ValueError(f"unknown policy {name!r}: use auto, {', '.join(names)}")
    return everything[names.index(name) :]
