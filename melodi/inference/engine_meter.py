"""Turns readings of an engine's counters into what it did while requests were in service."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from melodi.clock import NS_PER_SECOND
from melodi.energy.engine import PATIENCE_NS, EngineSteps

VAGUE_PART = 0.25
"""Part of the time between two readings by which their moments may be off."""
PAUSE_NS = NS_PER_SECOND // 10
"""A shorter time with nobody in service counts as service."""
BUSY_KEPT = 64
LOOK_EVERY_NS = 10 * NS_PER_SECOND
"""Streams show their steps themselves: it is enough to learn now and then how prompts are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCounters:
    """A backend's cumulative counters as they were at a moment of monotonic time."""

    at_ns: int
    half_width_ns: int
    """They stood so at most so long before or after."""
    process: float
    """Who counted: when that process began, in seconds since 1970."""
    steps: Mapping[str, float]
    """Of each of its engines."""
    prefill_tokens: float
    """Prompt tokens that were computed: not those from its cache."""
    output_tokens: float

    def since(self, before: "EngineCounters") -> tuple[float, float, float] | None:
        """Steps, prefill and output tokens since then; None where another process counts now.

        The steps are those of the engine that made most: with several, each serves a part of the
        requests.
        """
        if self.process != before.process or self.steps.keys() != before.steps.keys():
            return None
        steps = [total - before.steps[engine] for engine, total in self.steps.items()]
        prefill = self.prefill_tokens - before.prefill_tokens
        output = self.output_tokens - before.output_tokens
        if min(*steps, prefill, output) < 0:
            return None
        return max(steps), prefill, output

    def is_vague_since(self, before: "EngineCounters") -> bool:
        """Whether the two moments are too uncertain to tell what was done between them."""
        off_ns = self.half_width_ns + before.half_width_ns
        return off_ns > VAGUE_PART * (self.at_ns - before.at_ns)


class EngineMeter:
    """One backend's engine: when somebody was in service, and what its counters said.

    All times come in order.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._running = 0
        self._followed: set[str] = set()
        self._looked_ns: int | None = None
        self._owed = False
        self._busy: deque[tuple[int, int | None]] = deque(maxlen=BUSY_KEPT)
        """When somebody was in service; the end of the last is None while somebody is."""
        self._last: EngineCounters | None = None

    @property
    def is_owed(self) -> bool:
        """Whether a request that is not streamed is in service, or was since the last reading.

        One in some seconds that is streamed counts as well.
        """
        return self._owed or bool(self._followed)

    def begin(self, request: str, at_ns: int, *, streamed: bool) -> None:
        """A request was sent."""
        if self._running == 0:
            busy_ns = at_ns
            if self._busy and at_ns - (self._busy[-1][1] or at_ns) < PAUSE_NS:
                busy_ns, _ = self._busy.pop()
            self._busy.append((busy_ns, None))
        self._running += 1
        if not streamed or self._looked_ns is None or at_ns - self._looked_ns >= LOOK_EVERY_NS:
            self._looked_ns = at_ns
            self._followed.add(request)

    def end(self, request: str, at_ns: int) -> None:
        """A request is over."""
        self._running -= 1
        if self._running == 0:
            self._busy.append((self._busy.pop()[0], at_ns))
        if request in self._followed:
            self._followed.remove(request)
            self._owed = True

    def feed(self, now: EngineCounters) -> list[EngineSteps]:
        """What the engine did since the last reading, in each stretch in which it was busy.

        Unknown after a restart, or after long without a reading; then it counts from here on.
        A reading that was answered slowly is passed over: the next one tells of its time as well.
        """
        before = self._last
        if before is not None and now.is_vague_since(before):
            return []
        self._last, self._owed = now, False
        gained = None if before is None else now.since(before)
        if before is None:
            return [self._did(now.at_ns, now.at_ns)]
        if gained is None or now.at_ns - before.at_ns > PATIENCE_NS:
            return [self._unknown(before.at_ns, now.at_ns), self._did(now.at_ns, now.at_ns)]
        stretches = self._busy_between(before.at_ns, now.at_ns)
        whole_ns = sum(end_ns - start_ns for start_ns, end_ns in stretches)
        return [
            self._did(start_ns, end_ns, *(one * (end_ns - start_ns) / whole_ns for one in gained))
            for start_ns, end_ns in stretches
        ]

    def miss(self, at_ns: int) -> list[EngineSteps]:
        """There was no reading: what the engine did since the last one is not known."""
        before, self._last, self._owed = self._last, None, False
        return [] if before is None else [self._unknown(before.at_ns, at_ns)]

    def _busy_between(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """When somebody was in service; all the time if nobody was whom we know of."""
        found = [
            (max(busy_ns, start_ns), min(end_ns if done_ns is None else done_ns, end_ns))
            for busy_ns, done_ns in self._busy
        ]
        return [(start, end) for start, end in found if start < end] or [(start_ns, end_ns)]

    def _did(
        self, start_ns: int, end_ns: int, steps: float = 0, prefill: float = 0, output: float = 0
    ) -> EngineSteps:
        return EngineSteps(
            backend=self._backend,
            start_ns=start_ns,
            end_ns=end_ns,
            steps=steps,
            prefill_tokens=prefill,
            output_tokens=output,
        )

    def _unknown(self, start_ns: int, end_ns: int) -> EngineSteps:
        return EngineSteps(backend=self._backend, start_ns=start_ns, end_ns=end_ns, steps=None)
