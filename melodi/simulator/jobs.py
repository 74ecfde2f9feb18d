"""What goes into the simulated engine, what comes out, and what is known to be true of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One request to the engine."""

    model: str
    context_tokens: int = 0
    """The model is loaded for this context; another number means loading it anew."""
    prompt: Sequence[int] = ()
    """Token ids. Empty: only load the model."""
    output_tokens: int = 0
    """0: prefill only, as for an embedding."""
    finish_reason: str = "stop"
    keep_alive_ns: int | None = None
    """How long the model stays loaded after this request; None: for good."""

    def __post_init__(self) -> None:
        if self.output_tokens < 0 or (self.output_tokens and not self.prompt):
            raise ValueError("an answer needs a prompt of at least one token")


class EventKind(StrEnum):
    """What can happen to a request."""

    STARTED = "started"
    TOKEN = "token"  # noqa: S105 - a language token
    FINISHED = "finished"


class Event(NamedTuple):
    """Something happened to a request at `at_ns`."""

    kind: EventKind
    request: int
    at_ns: int
    tokens: int
    """Output tokens so far; the first token is 1."""
    reason: str | None = None
    """Why it finished: the submission's reason, `load` or `cancelled`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What one request truly cost: fixed joules of each step divided equally among those in it,
    the rest by own work; idle power divided at each instant among those in service.
    """

    true_active_joules: float
    """Prefill plus decode."""
    true_idle_share_joules: float
    true_prefill_joules: float
    true_decode_joules: float
    true_load_joules: float
    """All that was drawn, idle included, while the load that this request set off went on."""
    steps: int
    arrival_ns: int
    ready_ns: int
    """When its model was loaded; the arrival if it was already."""
    service_start_ns: int | None
    first_token_ns: int | None
    end_ns: int | None
    """None: not yet."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    reason: str | None


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A submission on its way through the engine."""

    id: int
    submission: Submission
    arrival_ns: int
    ready_ns: int
    prompt_tokens: int = field(init=False)
    cached_tokens: int = 0
    prefilled: int = 0
    emitted: int = 0
    chunk: int = 0
    """Prompt tokens in the present step."""
    work_joules: float = 0.0
    """Own work in the present step."""
    cancelled: bool = False
    service_start_ns: int | None = None
    first_token_ns: int | None = None
    end_ns: int | None = None
    reason: str | None = None
    steps: int = 0
    idle_share_joules: float = 0.0
    prefill_joules: float = 0.0
    decode_joules: float = 0.0
    load_joules: float = 0.0

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.submission.prompt)

    @property
    def load_key(self) -> tuple[str, int]:
        """What has to be in memory for this job to run."""
        return (self.submission.model, self.submission.context_tokens)

    def truth(self) -> Truth:
        """What is true of this job after the last step that ended."""
        return Truth(
            true_active_joules=self.prefill_joules + self.decode_joules,
            true_idle_share_joules=self.idle_share_joules,
            true_prefill_joules=self.prefill_joules,
            true_decode_joules=self.decode_joules,
            true_load_joules=self.load_joules,
            steps=self.steps,
            arrival_ns=self.arrival_ns,
            ready_ns=self.ready_ns,
            service_start_ns=self.service_start_ns,
            first_token_ns=self.first_token_ns,
            end_ns=self.end_ns,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.emitted,
            reason=self.reason,
        )
