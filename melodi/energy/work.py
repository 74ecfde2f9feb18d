"""The tokens of requests in time: what a policy weighs."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

TIME, READ, PRESENT, MADE, CONTEXT = range(5)
"""What a request does in a bin: ns in service, prompt tokens that it reads, engine steps that it is
in, tokens it makes, and the sum over those after the first of the tokens already in context."""
EARLY = 4
"""So many of them may be done before the first token."""
Prices = tuple[float, float, float, float, float]
"""What a unit of each costs, or weighs."""
PREFILL_PACE = 0.003
"""Time of a prefill token as a share of a decode step's, where it was not seen.

Only the place of the prefill inside the service hangs on it, not its weight.
"""
WAIT_STEPS = 0.5
"""A request that arrives waits for the step that runs: half of one, on average."""
SHOWN_PART = 0.5
"""Pieces that arrive within a smaller part of the time that they took were held up on the way."""


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
    def per_piece(self) -> float:
        """Output tokens in each piece that arrived; 0: not streamed."""
        pieces = len(self.arrivals_ns)
        return self.output_tokens / pieces if pieces > 1 else 0.0

    @property
    def is_seen(self) -> bool:
        """Whether it is known when its tokens came: it was streamed, or there is but one."""
        return self.per_piece > 0 or self.output_tokens <= 1

    @property
    def unseen(self) -> "Work":
        """The same work, of which nobody saw when it came."""
        return replace(self, arrivals_ns=array("q"))

    def prefill_ns(
        self,
        start_ns: int,
        end_ns: int,
        *,
        first_token_ns: int | None,
        pace: float = PREFILL_PACE,
    ) -> tuple[int, int]:
        """When the prompt was read, in a service from `start_ns` to `end_ns`; never an instant.

        It was the last step before the first token, as long as it took; what lies before is
        waiting. Where the first token is not known it came early in a service of equal steps.
        `pace` is the time that a prompt token takes, in steps.
        """
        steps = 1 + pace * self.prefill_tokens
        decoding = max(0, self.output_tokens - 1)
        if first_token_ns is None:
            pace_ns = (end_ns - start_ns) / (WAIT_STEPS + steps + decoding)
            first_ns = end_ns - round(decoding * pace_ns)
        else:
            first_ns = min(max(first_token_ns, start_ns), end_ns)
            pace_ns = (end_ns - first_ns) / max(1, decoding)
        begin_ns = first_ns - round(steps * pace_ns) if decoding else start_ns
        begin_ns = max(start_ns, min(begin_ns, first_ns - 1))
        return begin_ns, max(first_ns, begin_ns + 1)


def are_shown(arrivals_ns: Sequence[int], *, made_in_ns: float) -> bool:
    """Whether pieces arrived about as they were made; no: they came whole, or were held up.

    A busy server, or a proxy that collects, sends at once what took long to make.
    """
    if len(arrivals_ns) < 2:
        return False
    return arrivals_ns[-1] - arrivals_ns[0] >= SHOWN_PART * made_in_ns


def held_up_ns(arrivals_ns: "array[int]", end_ns: int) -> int:
    """How long pieces were held up on the way, as far as they show it: the longest time from one to
    the next, or to the end, beyond the mean. Who was held up as long all the time shows nothing.
    """
    if len(arrivals_ns) < 2:
        return 0
    came = np.frombuffer(arrivals_ns, np.int64)
    longest = max(int((came[1:] - came[:-1]).max()), end_ns - arrivals_ns[-1])
    return longest - (arrivals_ns[-1] - arrivals_ns[0]) // (len(arrivals_ns) - 1)
