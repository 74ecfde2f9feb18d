"""What the ledger remembers of requests and domains that it is not done with."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.idle import IdleLearner
from melodi.energy.tally import DomainFacts, Tally


@dataclass(slots=True)
class PendingRequest:
    """A request that the books still follow."""

    id: str
    domains: tuple[str, ...]
    sent_ns: int
    tallies: dict[str, Tally]
    span: Span | None = None
    """Known once it has ended."""
    concurrency_mean: float | None = None

    def seen_until(self, now_ns: int) -> Span:
        """Its service as far as it is known at `now_ns`."""
        return self.span or Span(self.id, Interval(self.sent_ns, max(self.sent_ns, now_ns)))


@dataclass(slots=True)
class OpenDomain:
    """One domain's open bins and what has been learned of it."""

    facts: DomainFacts
    idle: IdleLearner
    open: deque[Bin] = field(default_factory=deque)
    closed_ns: int | None = None
    """End of the last closed bin."""
    closed_uj: int | None = None
    """The curve's total there: measured joules are differences of these."""
    half_width_ns: int = 0
    """How far the latest edges may lie from where they are placed."""
    last_busy_ns: int | None = None

    @property
    def heard_ns(self) -> int | None:
        """Until when its sensor has told its energy."""
        return self.open[-1].end_ns if self.open else self.closed_ns

    def idle_since(self, bin_: Bin, spans: Sequence[Span]) -> int | None:
        """How long before the bin the last service ended, in ns; None: there was none yet."""
        ends_ns = [min(part.end_ns, bin_.end_ns) for span in spans for part in span.parts]
        self.last_busy_ns = max((*ends_ns, self.last_busy_ns or 0)) or None
        return None if self.last_busy_ns is None else max(0, bin_.start_ns - self.last_busy_ns)

    def look_ahead(self, until_ns: int) -> None:
        """Learn the idle power, if it can be, from open bins with nobody in them."""
        ahead = IdleLearner()
        for bin_ in self.open:
            if bin_.end_ns <= until_ns:
                ahead.feed(bin_, quiet=True)
        self.idle.watts = ahead.watts
