"""The requests in service and the steps that serve them: chunked prefill beside decoding."""

from dataclasses import dataclass
from random import Random

from melodi.clock import NS_PER_SECOND
from melodi.simulator.jobs import Event, EventKind, Job
from melodi.simulator.laws import (
    CONTEXT_JOULES,
    DECODE_JOULES,
    PREFILL_JOULES,
    StepCost,
    step_cost,
    step_seconds,
)
from melodi.simulator.settings import SimulatorSettings


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step: what it computes, how long it takes, what it draws above idle."""

    prefill: tuple[Job, ...]
    """Those that have a chunk of their prompt in it."""
    decode: tuple[Job, ...]
    duration_ns: int
    cost: StepCost
    joules: float

    @property
    def tokens(self) -> int:
        """Tokens computed: prompt chunks, and one per decoding request."""
        return len(self.decode) + sum(job.chunk for job in self.prefill)


class Batch:
    """Requests in service, in order of admission."""

    def __init__(self, settings: SimulatorSettings):
        self._settings = settings
        self._random = Random(settings.seed)  # noqa: S311 - noise, not a secret
        self._prefilling: list[Job] = []
        self._decoding: list[Job] = []

    def __len__(self) -> int:
        return len(self._prefilling) + len(self._decoding)

    def admit(self, job: Job) -> None:
        """Take `job` into service, from the next step on."""
        self._prefilling.append(job)

    def plan(self) -> Step:
        """The next step for all in service; there must be someone."""
        prefill = self._plan_prefill()
        prefill_tokens = sum(job.chunk for job in prefill)
        work = prefill_tokens * PREFILL_JOULES
        context_tokens = 0
        for job in self._decoding:
            context = job.prompt_tokens + job.emitted
            context_tokens += context
            job.work_joules = own = DECODE_JOULES + CONTEXT_JOULES * context
            work += own
        noise = self._random.gauss()
        cost = step_cost(self._settings.power_law, work_joules=work, noise=noise)
        joules = cost.fixed_joules + cost.factor * work
        seconds = step_seconds(
            decoding=len(self._decoding),
            context_tokens=context_tokens,
            prefill_tokens=prefill_tokens,
        )
        seconds = max(seconds, joules / self._settings.max_dynamic_watts)
        duration_ns = round(seconds * NS_PER_SECOND)
        return Step(tuple(prefill), tuple(self._decoding), duration_ns, cost, joules)

    def _plan_prefill(self) -> list[Job]:
        left = self._settings.max_step_tokens - len(self._decoding)
        planned = []
        for job in self._prefilling:
            if not left:
                break
            job.chunk = min(left, job.prompt_tokens - job.prefilled)
            job.work_joules = job.chunk * PREFILL_JOULES
            left -= job.chunk
            planned.append(job)
        return planned

    def complete(self, step: Step, end_ns: int) -> tuple[list[Event], list[Job]]:
        """Charge a step that ends at `end_ns`: its tokens, and the jobs that are through."""
        seconds = step.duration_ns / NS_PER_SECOND
        idle_share = self._settings.idle_watts * seconds / len(self)
        fixed_share = step.cost.fixed_joules / (len(step.prefill) + len(step.decode))
        factor = step.cost.factor
        for job in self._prefilling:
            job.idle_share_joules += idle_share
        events, ended = [], []
        for job in step.decode:
            job.idle_share_joules += idle_share
            job.decode_joules += fixed_share + factor * job.work_joules
            job.steps += 1
            if job.cancelled:
                ended.append(job)
                continue
            job.emitted += 1
            events.append(Event(EventKind.TOKEN, job.id, end_ns, job.emitted))
            if job.emitted == job.submission.output_tokens:
                ended.append(job)
        for job in step.prefill:
            job.prefill_joules += fixed_share + factor * job.work_joules
            job.steps += 1
            job.prefilled += job.chunk
        self._leave_prefill(end_ns, events, ended)
        for job in ended:
            if job in self._decoding:
                self._decoding.remove(job)
        return events, ended

    def _leave_prefill(self, end_ns: int, events: list[Event], ended: list[Job]) -> None:
        """Whose prompt is done has its first token now and decodes from here on."""
        still = []
        for job in self._prefilling:
            if job.cancelled:
                ended.append(job)
            elif job.prefilled < job.prompt_tokens:
                still.append(job)
            elif job.submission.output_tokens == 0:
                ended.append(job)
            else:
                job.emitted = 1
                job.first_token_ns = end_ns
                events.append(Event(EventKind.TOKEN, job.id, end_ns, 1))
                (ended if job.submission.output_tokens == 1 else self._decoding).append(job)
        self._prefilling = still
