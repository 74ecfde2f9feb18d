"""The tokens of a request in time: what a policy weighs."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

PREFILL_PACE = 0.003
"""Time of a prefill token as a share of a decode step's, where the first token was not seen.

Only the place of the prefill inside the service hangs on it, not its weight.
"""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one request did in a stretch of time; fractions where tokens were spread evenly."""

    prefill: float
    decode: float
    context: float
    """Sum over the decoded tokens of the tokens already in context."""
    steps: float
    """Engine steps that the request is known to have been in: arrivals of its tokens."""


NOTHING = Tokens(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A request's tokens as its backend counted them, and when they arrived if it streamed."""

    input_tokens: int
    prefill_tokens: int
    """Input tokens that were not cached: cached ones cost nothing."""
    output_tokens: int
    arrivals_ns: "array[int]"
    """When pieces of the answer arrived, in order; empty: not streamed."""

    @classmethod
    def of(
        cls,
        *,
        input_tokens: int | None,
        cached_tokens: int | None,
        output_tokens: int | None,
        arrivals_ns: Iterable[int],
    ) -> "Work | None":
        """The work of a request; None where the backend did not count its tokens."""
        if input_tokens is None or output_tokens is None:
            return None
        prefill = max(0, input_tokens - (cached_tokens or 0))
        return cls(input_tokens, prefill, output_tokens, array("q", arrivals_ns))

    @property
    def streamed(self) -> bool:
        return len(self.arrivals_ns) > 1 and self.output_tokens > 0

    def within(
        self, start_ns: int, end_ns: int, *, service: tuple[int, int], first_ns: int | None
    ) -> Tokens:
        """The tokens of [start_ns, end_ns); `service` is when it ran, `first_ns` its first token.

        The first token is the prefill's: decoding gives the others.
        """
        prefill_end_ns = self._prefill_end(service, first_ns)
        prefill = self.prefill_tokens * _share(start_ns, end_ns, service[0], prefill_end_ns)
        before, after, arrived = self._outputs(start_ns, end_ns, prefill_end_ns, service[1])
        decoded = max(0.0, after - 1) - max(0.0, before - 1)
        context = decoded * (self.input_tokens + (before + after) / 2)
        return Tokens(prefill, decoded, context, arrived)

    def _prefill_end(self, service: tuple[int, int], first_ns: int | None) -> int:
        if first_ns is not None:
            return max(first_ns, service[0])
        paced = self.prefill_tokens * PREFILL_PACE
        share = paced / (paced + self.output_tokens) if paced + self.output_tokens else 1.0
        return service[0] + round((service[1] - service[0]) * share)

    def _outputs(
        self, start_ns: int, end_ns: int, prefill_end_ns: int, service_end_ns: int
    ) -> tuple[float, float, float]:
        """Output tokens before the stretch, before its end, and those seen arriving in it."""
        if not self.streamed:
            spread = self.output_tokens
            before = spread * _share(prefill_end_ns, start_ns, prefill_end_ns, service_end_ns)
            after = spread * _share(prefill_end_ns, end_ns, prefill_end_ns, service_end_ns)
            return before, after, 0.0
        first = bisect_left(self.arrivals_ns, start_ns)
        last = bisect_left(self.arrivals_ns, end_ns)
        each = self.output_tokens / len(self.arrivals_ns)
        return first * each, last * each, (last - first) * each


def _share(start_ns: int, end_ns: int, from_ns: int, to_ns: int) -> float:
    """How much of [from_ns, to_ns) lies in [start_ns, end_ns); all of an instant that does."""
    if to_ns <= from_ns:
        return 1.0 if start_ns <= from_ns < end_ns else 0.0
    overlap_ns = min(end_ns, to_ns) - max(start_ns, from_ns)
    return max(0, overlap_ns) / (to_ns - from_ns)
