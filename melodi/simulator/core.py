"""A continuous-batching engine as a discrete-event simulation in virtual time."""

import threading
from collections import deque
from dataclasses import dataclass

from melodi.clock import NS_PER_SECOND
from melodi.simulator.batch import Batch, Step
from melodi.simulator.history import History
from melodi.simulator.jobs import Event, EventKind, Job, Submission, Truth
from melodi.simulator.prefix import PrefixCache
from melodi.simulator.settings import SimulatorSettings
from melodi.simulator.tally import Tally, Totals

TRUTHS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The model in memory."""

    model: str
    context_tokens: int
    expires_ns: int | None
    """When it leaves memory unless it is used again; None: not before it is told to."""


@dataclass(frozen=True, slots=True)
class _Load:
    """A model on its way into memory, on account of `job`."""

    job: Job
    duration_ns: int


class Core:
    """Serves submissions first come, first served, one model in memory at a time.

    Time is whatever the callers say, in ns; it never goes back: what is asked of a moment
    already passed happens now, and energy of the past stays as it was. All methods may be
    called from any thread.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        *,
        origin_ns: int = 0,
        loaded: tuple[str, int] | None = None,
    ):
        """`loaded`: the model and context that are in memory from the start."""
        self.settings = settings
        self._lock = threading.Lock()
        self._origin_ns = self._now_ns = self._idle_since_ns = origin_ns
        self._dynamic = History(origin_ns)
        self._batch = Batch(settings)
        self._prefixes = PrefixCache()
        self._tally = Tally()
        self._queue: deque[Job] = deque()
        self._jobs: dict[int, Job] = {}
        self._events: deque[Event] = deque()
        self._phase: Step | _Load | None = None
        self._phase_end_ns = 0
        self._loaded = loaded
        self._keep_alive_ns: int | None = None
        self._next_id = 1

    def submit(self, submission: Submission, at_ns: int) -> int:
        """Queue a request; gives its id."""
        with self._lock:
            self._advance(at_ns)
            job = Job(
                id=self._next_id,
                submission=submission,
                arrival_ns=self._now_ns,
                ready_ns=self._now_ns,
            )
            self._next_id += 1
            self._jobs[job.id] = job
            self._forget_old()
            self._queue.append(job)
            if self._phase is None:
                self._leave_idle()
                self._begin_phase()
            return job.id

    def cancel(self, request: int, at_ns: int) -> None:
        """Stop a request: at once if it queues, else when the present step ends."""
        with self._lock:
            self._advance(at_ns)
            job = self._jobs.get(request)
            if job is None or job.end_ns is not None:
                return
            job.cancelled = True
            if job in self._queue:
                self._queue.remove(job)
                self._finish(job)

    def unload(self, model: str, at_ns: int) -> None:
        """Let `model` leave memory as soon as nothing runs on it."""
        with self._lock:
            self._advance(at_ns)
            if self._loaded is not None and self._loaded[0] == model:
                self._keep_alive_ns = 0

    def loaded(self, at_ns: int) -> LoadedModel | None:
        """The model in memory at `at_ns`."""
        with self._lock:
            self._advance(at_ns)
            if self._loaded is None or self._expired():
                return None
            return LoadedModel(*self._loaded, self._expires_ns())

    def advance(self, to_ns: int) -> None:
        """Let everything happen that happens up to and at `to_ns`."""
        with self._lock:
            self._advance(to_ns)

    def drain(self) -> list[Event]:
        """The events since the last call, in order of time; for one consumer."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
            return events

    def next_event_ns(self) -> int | None:
        """When to look again: the oldest event not drained, else the end of the present step."""
        with self._lock:
            if self._events:
                return self._events[0].at_ns
            return None if self._phase is None else self._phase_end_ns

    def energy_uj(self, at_ns: int) -> int:
        """Microjoules drawn from the origin until `at_ns`, idle power included."""
        with self._lock:
            self._advance(at_ns)
            at_ns = max(at_ns, self._origin_ns)
            idle = self.settings.idle_watts * (at_ns - self._origin_ns) / NS_PER_SECOND
            return int((idle + self._dynamic.joules_at(at_ns)) * 1e6)

    def power_uw(self, at_ns: int) -> int:
        """Microwatts drawn at `at_ns`."""
        with self._lock:
            self._advance(at_ns)
            dynamic = self._dynamic.watts_at(max(at_ns, self._origin_ns))
            return int((self.settings.idle_watts + dynamic) * 1e6)

    def truth(self, request: int) -> Truth:
        """What is true of a request; whole once it has finished.

        Raises KeyError where no such request is known any more.
        """
        with self._lock:
            return self._jobs[request].truth()

    def totals(self) -> Totals:
        """Counts and joules of all steps that have ended, and of the idle time between."""
        with self._lock:
            idle_ns = 0 if self._phase else self._now_ns - self._idle_since_ns
            return self._tally.totals(
                running=len(self._batch),
                waiting=len(self._queue),
                idle_joules=self.settings.idle_watts * idle_ns / NS_PER_SECOND,
                tail_joules=0.0 if self._phase else self._tail_joules(),
            )

    def _advance(self, to_ns: int) -> None:
        while self._phase is not None and self._phase_end_ns <= to_ns:
            self._end_phase(self._phase)
        self._now_ns = max(self._now_ns, to_ns)

    def _leave_idle(self) -> None:
        if self._expired():
            self._unload()
        idle_ns = self._now_ns - self._idle_since_ns
        self._tally.idle_joules += self.settings.idle_watts * idle_ns / NS_PER_SECOND
        self._tally.tail_joules += self._tail_joules()

    def _enter_idle(self) -> None:
        self._phase = None
        self._idle_since_ns = self._now_ns

    def _begin_tail(self) -> None:
        tail_ns = round(self.settings.tail_seconds * NS_PER_SECOND)
        joules = self.settings.tail_watts * self.settings.tail_seconds
        self._dynamic.rise(self._now_ns, self._now_ns + tail_ns, joules)

    def _begin_phase(self) -> None:
        """Start the next load or step; with nothing to do, fall idle."""
        self._admit()
        if len(self._batch):
            step = self._batch.plan()
            self._start(step, step.joules)
        elif self._queue:
            seconds = self.settings.load_seconds
            load = _Load(self._queue[0], round(seconds * NS_PER_SECOND))
            self._unload()
            self._start(load, self.settings.load_watts * seconds)
        else:
            self._enter_idle()

    def _start(self, phase: Step | _Load, joules: float) -> None:
        self._phase = phase
        self._phase_end_ns = self._now_ns + phase.duration_ns
        self._dynamic.rise(self._now_ns, self._phase_end_ns, joules)

    def _admit(self) -> None:
        """Take from the queue what may run now: its model is in memory and a slot is free."""
        while self._queue and self._queue[0].load_key == self._loaded:
            job = self._queue[0]
            if job.submission.prompt and len(self._batch) == self.settings.max_running:
                return
            self._queue.popleft()
            self._keep_alive_ns = job.submission.keep_alive_ns
            if not job.submission.prompt:
                self._finish(job)
                continue
            job.service_start_ns = self._now_ns
            job.prefilled = job.cached_tokens = self._prefixes.cached_tokens(job.submission.prompt)
            self._batch.admit(job)
            self._events.append(Event(EventKind.STARTED, job.id, self._now_ns, 0))

    def _end_phase(self, phase: Step | _Load) -> None:
        self._now_ns = self._phase_end_ns
        if isinstance(phase, _Load):
            self._end_load(phase)
        else:
            self._end_step(phase)
        self._begin_phase()
        if self._phase is None:
            self._begin_tail()

    def _end_load(self, load: _Load) -> None:
        seconds = self.settings.load_seconds
        load.job.load_joules = (self.settings.load_watts + self.settings.idle_watts) * seconds
        self._tally.load_joules += load.job.load_joules
        self._loaded = load.job.load_key
        self._keep_alive_ns = load.job.submission.keep_alive_ns
        for job in self._queue:
            if job.load_key == self._loaded:
                job.ready_ns = self._now_ns

    def _end_step(self, step: Step) -> None:
        self._tally.count(step, idle_watts=self.settings.idle_watts)
        events, ended = self._batch.complete(step, self._now_ns)
        for job in step.prefill:
            if job.prefilled == job.prompt_tokens:
                self._prefixes.remember(job.submission.prompt)
                self._tally.count_prompt(job)
        self._events.extend(events)
        self._tally.output_tokens += len(events)
        for job in ended:
            self._finish(job)

    def _finish(self, job: Job) -> None:
        job.end_ns = self._now_ns
        natural = job.submission.finish_reason if job.submission.prompt else "load"
        job.reason = "cancelled" if job.cancelled else natural
        self._tally.count_end(job)
        self._events.append(
            Event(EventKind.FINISHED, job.id, self._now_ns, job.emitted, job.reason)
        )

    def _unload(self) -> None:
        self._loaded = None
        self._prefixes.clear()

    def _expires_ns(self) -> int | None:
        if self._keep_alive_ns is None:
            return None
        since_ns = self._now_ns if self._phase else self._idle_since_ns
        return since_ns + self._keep_alive_ns

    def _expired(self) -> bool:
        expires_ns = self._expires_ns()
        return self._phase is None and expires_ns is not None and expires_ns <= self._now_ns

    def _tail_joules(self) -> float:
        level = self._dynamic.joules_at
        return level(self._now_ns) - level(self._idle_since_ns)

    def _forget_old(self) -> None:
        while len(self._jobs) > TRUTHS_KEPT:
            oldest = next(iter(self._jobs))
            if self._jobs[oldest].end_ns is None:
                return
            del self._jobs[oldest]
