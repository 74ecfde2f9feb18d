"""What an engine did, by its own counters: its steps over time, and when a first token came."""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import Bin, Interval, Span
from melodi.energy.steps import non_negative_fit
from melodi.energy.work import PREFILL_PACE, Work, are_shown

LATELY_NS = 10 * NS_PER_SECOND
"""An engine that has told nothing for so long is not waited for any more."""
PATIENCE_NS = 5 * NS_PER_SECOND
"""So long is waited for what it did: readings further apart tell nothing, because too much may
have happened between them that nobody here knows of."""
KEPT = 2_000
LEARNT_FROM_NS = NS_PER_SECOND // 2
"""Shorter stretches hold too few steps to tell how long one took."""
ROWS_KEPT = 300
GUESS_STEPS = 667.0
"""How sure the guess of a token's pace is: as one stretch that holds so many tokens of it."""
MOST_MOVED = 0.5
"""Part of the steps of a bin that its prefills may add or take away, for them to be known."""
STRETCHES_TO_TRUST = 3
"""A pace that was learned from fewer is mostly the guess."""
QUEUED_STEPS = 10
"""A first token so many steps after the earliest time for it shows that its request waited."""
FEW_PIECES = 10
"""Fewer may come together by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSteps:
    """What a backend's engine did in a stretch of monotonic time.

    Between two stretches it was idle. `steps` is None where its counters were not to be had.
    """

    backend: str
    start_ns: int
    end_ns: int
    steps: float | None
    prefill_tokens: float = 0.0
    """Prompt tokens that it computed: not those from a cache."""
    output_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineBin:
    """What an engine did in a bin, if it did all things evenly between two readings."""

    steps: float
    prefill_tokens: float
    pace: float
    """The time that a prefill token takes, in steps."""

    def steps_beside(self, prefill_tokens: float) -> float:
        """The steps of the bin if so many prompt tokens were read in it; 0: there is no telling.

        Time goes evenly; the steps give way to the prompts: steps + pace x tokens is what is even.
        """
        moved = self.pace * (self.prefill_tokens - prefill_tokens)
        return self.steps + moved if abs(moved) <= MOST_MOVED * self.steps else 0.0


class TokenPace:
    """How long a prefill token takes, in steps; learned from whole stretches.

    Non-negative least squares of their lengths by steps, output tokens and prefill tokens. A
    guess stands for a row until there are others that say more: PREFILL_PACE for both kinds.
    """

    def __init__(self) -> None:
        self._rows: deque[tuple[float, ...]] = deque(maxlen=ROWS_KEPT)
        self.steps = PREFILL_PACE

    @property
    def is_learned(self) -> bool:
        """Whether it is more than a guess."""
        return len(self._rows) >= STRETCHES_TO_TRUST

    def learn(self, told: EngineSteps) -> None:
        """Take a stretch; one that was short, or spent mostly on prompts, teaches nothing."""
        length_ns, steps = told.end_ns - told.start_ns, told.steps or 0.0
        if length_ns < LEARNT_FROM_NS or PREFILL_PACE * told.prefill_tokens >= MOST_MOVED * steps:
            return
        self._rows.append((steps, told.output_tokens, told.prefill_tokens, 0.0, length_ns))
        rows = np.array(self._rows)
        work = np.concatenate((_GUESSES, rows[:, :4]))
        lengths = np.concatenate((np.zeros(len(_GUESSES)), rows[:, 4]))
        step, output, prefill, _ = non_negative_fit(work, lengths).tolist()
        step += output * float(rows[:, 1].sum() / rows[:, 0].sum())
        if step > 0:
            self.steps = prefill / step


_GUESSES = GUESS_STEPS * np.array(((-PREFILL_PACE, 1.0, 0.0, 0.0), (-PREFILL_PACE, 0.0, 1.0, 0.0)))


class StepLog:
    """The stretches that one engine has told, in order of time."""

    def __init__(self) -> None:
        self._told: list[EngineSteps] = []
        self._ends_ns: list[int] = []
        self._paces: list[float] = []
        self._pace = TokenPace()
        self._trusted_ns: int | None = None

    def add(self, told: EngineSteps) -> None:
        """What was told next."""
        self._pace.learn(told)
        self._told.append(told)
        self._ends_ns.append(told.end_ns)
        self._paces.append(self._pace.steps)
        if self._trusted_ns is None and self._pace.is_learned:
            self._trusted_ns = told.end_ns
        if len(self._told) >= 2 * KEPT:
            for some in (self._told, self._ends_ns, self._paces):
                del some[:KEPT]

    def is_due(self, until_ns: int, now_ns: int) -> bool:
        """Whether to wait for what tells of that moment: the engine has told something of late."""
        if not self._told or self._told[-1].steps is None:
            return False
        missing_ns = until_ns - self._ends_ns[-1]
        return 0 < missing_ns <= LATELY_NS and now_ns < until_ns + PATIENCE_NS

    def during(self, bin_: Bin) -> EngineBin | None:
        """What the engine did in a bin; None where that is not known.

        Whoever is served in it has waited for what tells of the end: what lies behind is idle.
        """
        if not self._told or bin_.start_ns < self._told[0].start_ns:
            return None
        if bin_.start_ns >= self._ends_ns[-1]:
            return None
        steps = prefill = pace = 0.0
        for place in range(bisect_right(self._ends_ns, bin_.start_ns), len(self._told)):
            one = self._told[place]
            if one.start_ns >= bin_.end_ns:
                break
            if one.steps is None:
                return None
            common_ns = min(one.end_ns, bin_.end_ns) - max(one.start_ns, bin_.start_ns)
            if common_ns > 0:
                part = common_ns / (one.end_ns - one.start_ns)
                steps, prefill = steps + part * one.steps, prefill + part * one.prefill_tokens
                pace = self._paces[place]
        return EngineBin(steps, prefill, pace)

    def pace_at(self, at_ns: int) -> float:
        """The time that a prompt token took then, in steps; PREFILL_PACE where nothing was told."""
        place = min(bisect_right(self._ends_ns, at_ns), len(self._paces) - 1)
        return self._paces[place] if place >= 0 else PREFILL_PACE

    def knows_pace(self, at_ns: int) -> bool:
        """Whether that is more than a guess."""
        return self._trusted_ns is not None and at_ns >= self._trusted_ns

    def shows(self, work: Work) -> bool:
        """Whether the pieces of an answer came when its tokens were made, as far as it can tell.

        A busy server, or a proxy that collects, sends at once what took many steps.
        """
        arrivals = work.arrivals_ns
        if len(arrivals) < FEW_PIECES:
            return True
        step_ns = self._step_ns(arrivals[-1])
        return step_ns is None or are_shown(arrivals, made_in_ns=step_ns * (len(arrivals) - 1))

    def _step_ns(self, at_ns: int) -> float | None:
        """How long a step took then, or lately before; None: nothing was told."""
        for one in reversed(self._told[: bisect_right(self._ends_ns, at_ns) + 1]):
            if one.end_ns < at_ns - LATELY_NS:
                break
            if one.steps:
                return (one.end_ns - one.start_ns) / one.steps
        return None

    def before(self, end_ns: int, steps: float) -> int | None:
        """When the engine was so many steps short of where it was at `end_ns`; None: not known."""
        if not self._told or end_ns > self._ends_ns[-1]:
            return None
        last = min(bisect_right(self._ends_ns, end_ns), len(self._told) - 1)
        for one in reversed(self._told[: last + 1]):
            length_ns, until_ns = one.end_ns - one.start_ns, min(one.end_ns, end_ns)
            if until_ns <= one.start_ns:
                continue
            if one.steps is None:
                return None
            made = one.steps * (until_ns - one.start_ns) / length_ns
            if made > 0 and made >= steps:
                return until_ns - round(steps / one.steps * length_ns)
            steps -= made
        return None


class Engines:
    """The steps of all engines that tell theirs, by backend."""

    def __init__(self) -> None:
        self._logs: dict[str, StepLog] = {}

    def add(self, told: EngineSteps) -> None:
        """What an engine told next, each in order of time."""
        self._logs.setdefault(told.backend, StepLog()).add(told)

    def tell_of(self, span: Span) -> bool:
        """Whether the steps of its backend are told."""
        return span.backend in self._logs

    def is_due(self, span: Span, now_ns: int) -> bool:
        """Whether to wait for what tells when a first token came that nobody saw."""
        log = self._logs.get(span.backend)
        if log is None or not is_unseen(_as_shown(span, log)):
            return False
        return log.is_due(span.service.end_ns, now_ns)

    def placed(self, span: Span) -> Span | None:
        """The span without the time in which its request waited; None: there is no telling.

        Its prompt was read just before its first token, at the engine's pace. If that began
        clearly later than the request was sent, it waited, and service began no sooner. A stream
        that was held up on the way is placed as if nobody had seen it.
        """
        log = self._logs.get(span.backend)
        if log is None or span.work is None:
            return None
        pace = log.pace_at(span.service.end_ns)
        shown = _as_shown(span, log)
        if is_unseen(shown):
            return _placed(shown, log, pace) or (None if shown is span else shown)
        return _without_waiting(span, pace) if log.knows_pace(span.service.end_ns) else None

    def during(self, bin_: Bin) -> dict[str, EngineBin]:
        """What each engine did in the bin, where that is known."""
        found = {name: log.during(bin_) for name, log in self._logs.items()}
        return {name: one for name, one in found.items() if one is not None}


def _as_shown(span: Span, log: StepLog) -> Span:
    """The span; without its arrivals and its first token where these tell nothing."""
    if span.work is None or log.shows(span.work):
        return span
    return replace(span, first_token_ns=None, work=span.work.unseen)


def _placed(span: Span, log: StepLog, pace: float) -> Span | None:
    """The span of a request that nobody saw, with its first token.

    Every step gives a token to whoever decodes, so the first is found by going back from the
    end. Readings a second apart place it less well than the assumption that nobody waited; so
    they are followed only if it came clearly later than that.
    """
    service, work = span.service, span.work
    assert work is not None
    decoded = work.output_tokens - 1
    found_ns = log.before(service.end_ns, decoded)
    if found_ns is None:
        return None
    _, earliest_ns = work.prefill_ns(
        service.start_ns, service.end_ns, first_token_ns=None, pace=pace
    )
    step_ns = (service.end_ns - found_ns) / decoded
    if found_ns <= earliest_ns + QUEUED_STEPS * step_ns:
        return replace(span, first_token_ns=earliest_ns)
    return _begun(replace(span, first_token_ns=found_ns), work, pace)


def _without_waiting(span: Span, pace: float) -> Span | None:
    """The span of a request that was streamed; None where it did not wait."""
    service, first_ns, work = span.service, span.first_token_ns, span.work
    if work is None or first_ns is None or not work.per_piece:
        return None
    begun = _begun(span, work, pace)
    step_ns = (service.end_ns - first_ns) / max(1, work.output_tokens - 1)
    waited_ns = begun.service.start_ns - service.start_ns
    return begun if waited_ns > QUEUED_STEPS * step_ns else None


def _begun(span: Span, work: Work, pace: float) -> Span:
    """The span from when its prompt was read."""
    start_ns, end_ns = span.service.start_ns, span.service.end_ns
    begun_ns, _ = work.prefill_ns(start_ns, end_ns, first_token_ns=span.first_token_ns, pace=pace)
    return replace(span, service=Interval(begun_ns, end_ns))


def is_unseen(span: Span) -> bool:
    """Whether nobody saw when its tokens came, and nobody told of the first; and there are some."""
    work = span.work
    return work is not None and not work.is_seen and span.first_token_ns is None
