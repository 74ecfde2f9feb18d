"""Keeps one energy curve per domain, read in a process of its own."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from collectors.registry import Probe, State
from melodi.child import Restarts
from melodi.clock import Clock
from melodi.sampling.plan import Plan
from melodi.sampling.process import STOP_SECONDS, Message, MeterProcess, Passes, Told
from melodi.sampling.sampler import OnSample, Sampling, Stations

FIRST_WAIT_SECONDS = 0.5

log = structlog.get_logger(__name__)


class ApartSampler(Sampling):
    """Feeds the curves from a process that reads the meters, and starts it anew when it ends.

    `probes` is what `process` said at first. `on_sample` is called in the thread that feeds the
    curves, `on_change` in the one that listens; what has changed counts once `follow` is called
    with it.
    """

    def __init__(
        self,
        plan: Plan,
        process: MeterProcess,
        probes: Sequence[Probe],
        *,
        clock: Clock,
        on_sample: OnSample,
        on_change: Callable[[list[Probe]], object],
    ) -> None:
        super().__init__(Stations(period_of=plan.period_ns, clock=clock, on_sample=on_sample))
        self._plan = plan
        self._process = process
        self._clock = clock
        self._on_change = on_change
        self._probes = list(probes)
        self._stations.follow(probes)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="melodi-meters", daemon=True)
        self._fault: str | None = None
        self._cpu_seconds = self._cpu_seconds_before = 0.0

    @property
    def faults(self) -> list[str]:
        if self._stopping.is_set():
            return []
        found = [] if self._fault is None else [self._fault]
        if self._thread.ident is not None and not self._thread.is_alive():
            found.append("nobody listens to the meters any more; restart melodi")
        return found + self._stations.faults

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the processes that read the meters, so far."""
        return self._cpu_seconds_before + self._cpu_seconds

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def follow(self, probes: Sequence[Probe]) -> None:
        self._stations.follow(probes)

    def stop(self) -> None:
        """End the process and the thread."""
        self._stopping.set()
        self._process.ask_to_stop()
        self._thread.join(timeout=STOP_SECONDS)
        self._process.ask_to_stop()  # another one may have been started meanwhile
        self._process.close()
        self._thread.join(timeout=STOP_SECONDS)
        self._process.let_go()

    def _listen(self) -> None:
        restarts = Restarts(self._clock, first_seconds=FIRST_WAIT_SECONDS)
        while not self._stopping.is_set():
            try:
                self._hear(self._process.receive())
                continue
            except EOFError:
                exit_code = self._process.close()
            if self._stopping.is_set():
                return
            wait_seconds = restarts.wait_seconds()
            self._fault = (
                f"the process that reads the meters has ended (exit code {exit_code}): it is "
                f"started again in {wait_seconds:g} s; see the log"
            )
            log.warning("meters_ended", exit_code=exit_code, again_in_seconds=wait_seconds)
            if self._stopping.wait(wait_seconds):
                return
            restarts.begun()
            self._start_anew()

    def _start_anew(self) -> None:
        self._cpu_seconds_before, self._cpu_seconds = self.cpu_seconds, 0.0
        try:
            process = MeterProcess(self._plan)
        except OSError as error:
            self._fault = f"the process that reads the meters cannot be started: {error}"
            log.warning("meters_not_started", reason=str(error))
            return
        self._process.let_go()
        self._process = process

    def _hear(self, message: Message | None) -> None:
        if isinstance(message, Told):
            self._fault = None
            self._probes = _merged(message.probes, self._probes)
            self._on_change(self._probes)
        elif isinstance(message, Passes):
            self._cpu_seconds = message.cpu_seconds
            for one in message.passes:
                self._stations.take(one)


def _merged(told: Sequence[Probe], known: Sequence[Probe]) -> list[Probe]:
    """What the process says now, beside what is known: a meter that it lacks is away, not gone.

    The estimate alone comes and goes: it is not taken up again beside meters that are away.
    """
    now = {one.name: one for one in told}
    measures = any(one.domains for one in known)
    merged = []
    for old in known:
        new = now.pop(old.name, None)
        if new is None and old.name == "estimate":
            continue
        if new is None or not _names(new) >= _names(old):
            reason = "it was not found again" if new is None else new.reason
            new = replace(old, state=State.FAILING, reason=reason)
        merged.append(new)
    return merged + [one for one in now.values() if one.name != "estimate" or not measures]


def _names(found: Probe) -> set[str]:
    return {domain.name for domain in found.domains}
