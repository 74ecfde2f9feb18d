"""Running sums over all that the engine has done."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from melodi.clock import NS_PER_SECOND
from melodi.simulator.batch import Step
from melodi.simulator.jobs import Job

STEP_TOKEN_EDGES = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Upper edges of the histogram of tokens in a step; the last bucket has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What the engine has done and drawn; the six joules add up to its energy."""

    running: int
    waiting: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    steps: int
    step_tokens: int
    step_token_counts: tuple[int, ...]
    """Steps by tokens computed, between the edges of STEP_TOKEN_EDGES."""
    finished: dict[str, int]
    """Requests that have ended, by reason."""
    active_joules: float
    idle_share_joules: float
    load_joules: float
    idle_joules: float
    """Idle power while nobody was in service."""
    tail_joules: float

    @property
    def energy_joules(self) -> float:
        """All that was drawn."""
        return (
            self.active_joules
            + self.idle_share_joules
            + self.load_joules
            + self.idle_joules
            + self.tail_joules
        )


@dataclass(slots=True)
class Tally:
    """The sums as they grow."""

    active_joules: float = 0.0
    idle_share_joules: float = 0.0
    load_joules: float = 0.0
    idle_joules: float = 0.0
    tail_joules: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    step_tokens: int = 0
    step_token_counts: list[int] = field(default_factory=lambda: [0] * (len(STEP_TOKEN_EDGES) + 1))
    finished: Counter[str] = field(default_factory=Counter)

    def count(self, step: Step, *, idle_watts: float) -> None:
        """Add a step that has ended."""
        self.active_joules += step.joules
        self.idle_share_joules += idle_watts * step.duration_ns / NS_PER_SECOND
        self.steps += 1
        self.step_tokens += step.tokens
        self.step_token_counts[bisect_left(STEP_TOKEN_EDGES, step.tokens)] += 1

    def count_prompt(self, job: Job) -> None:
        """Add a prompt that is now wholly read."""
        self.prompt_tokens += job.prompt_tokens
        self.cached_tokens += job.cached_tokens

    def count_end(self, job: Job) -> None:
        """Add a request that has ended."""
        if job.reason is not None:
            self.finished[job.reason] += 1

    def totals(
        self, *, running: int, waiting: int, idle_joules: float, tail_joules: float
    ) -> Totals:
        """The sums now; `idle_joules` and `tail_joules` are of the idle time going on."""
        return Totals(
            running=running,
            waiting=waiting,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.output_tokens,
            steps=self.steps,
            step_tokens=self.step_tokens,
            step_token_counts=tuple(self.step_token_counts),
            finished=dict(self.finished),
            active_joules=self.active_joules,
            idle_share_joules=self.idle_share_joules,
            load_joules=self.load_joules,
            idle_joules=self.idle_joules + idle_joules,
            tail_joules=self.tail_joules + tail_joules,
        )
