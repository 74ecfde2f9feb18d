"""Gathers what the ledger is told and closes, so that its books can be kept anew later."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.engine import EngineSteps
from melodi.energy.tally import DomainFacts
from melodi.energy.usage import Usage
from melodi.store.kept import Kept, KeptRequest

MOST_REQUESTS = 250
"""In one part: packing more at once would hold up meters and answers."""


class Keeper:
    """What has been told and closed since it was last taken. One thread owns it."""

    def __init__(self, facts: Callable[[], Sequence[DomainFacts]]) -> None:
        self._session = uuid.uuid4().hex
        self._number = 0
        self._facts = facts
        self._running: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._requests: list[KeptRequest] = []
        self._usages: list[Usage] = []
        self._steps: list[EngineSteps] = []
        self._bins: list[Bin] = []
        self._minute: int | None = None

    def begin(self, request: str, domains: Iterable[str], at_ns: int) -> None:
        """A request was sent."""
        self._running[request] = (at_ns, tuple(domains))

    def end(self, request: str, span: Span | None) -> None:
        """The request is over; one that no domain was charged for is not kept."""
        sent_ns, domains = self._running.pop(request)
        if domains:
            span = span or Span(request, Interval(sent_ns, sent_ns))
            self._requests.append(KeptRequest(span, sent_ns, domains))

    def use(self, usage: Usage) -> None:
        """Who worked on a domain for a while."""
        self._usages.append(usage)

    def step(self, told: EngineSteps) -> None:
        """What an engine did for a while."""
        self._steps.append(told)

    def close(self, bins: Iterable[Bin]) -> None:
        """The ledger closed these."""
        self._bins += bins

    def take(self, minute: int, *, everything: bool = False) -> tuple[Kept, ...]:
        """All of it once a minute has passed since it was last taken, or it is much; else nothing.

        With `everything` at once.
        """
        if self._minute is None:
            self._minute = minute
        due = everything or minute != self._minute or len(self._requests) >= MOST_REQUESTS
        if not due or not (self._bins or self._requests):
            return ()
        first = Kept(
            session=self._session,
            number=self._number,
            minute=minute,
            facts=tuple(self._facts()),
            bins=tuple(self._bins),
            requests=tuple(self._requests[:MOST_REQUESTS]),
            usages=tuple(self._usages),
            steps=tuple(self._steps),
        )
        others = (
            replace(
                first,
                number=self._number + place // MOST_REQUESTS,
                bins=(),
                requests=tuple(self._requests[place : place + MOST_REQUESTS]),
                usages=(),
                steps=(),
            )
            for place in range(MOST_REQUESTS, len(self._requests), MOST_REQUESTS)
        )
        parts = (first, *others)
        self._minute = minute
        self._number += len(parts)
        self._bins, self._requests, self._usages, self._steps = [], [], [], []
        return parts
