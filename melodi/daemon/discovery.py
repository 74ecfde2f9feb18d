"""The thread that watches where backends run, and tells the books their part in the work."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from collectors.base import Domain, Kind, Origin
from collectors.errors import CollectorError, ReadFailed
from collectors.nvml import NvmlCollector
from collectors.nvml_processes import GpuProcesses, gpu_processes
from collectors.registry import Probe
from melodi.clock import NS_PER_SECOND, Clock
from melodi.daemon.backends import Backends
from melodi.energy.usage import Usage
from melodi.inference.discovery import Presence
from melodi.inference.placement import Follower, Placement, Watched
from melodi.inference.processes import HostProcesses, ProcessTable
from melodi.inference.sharing import Parts, cpu_parts, gpu_parts
from melodi.sampling.ticks import Ticks

LOOK_EVERY_NS = NS_PER_SECOND
STOP_SECONDS = 2.0

_STRANGERS = (
    "the driver tells pids that do not exist here: melodi and the driver count them apart; "
    "run it outside of containers, or with the host's pids (--pid=host)"
)
_NO_LISTS = "this GPU's driver does not tell who is on it; name the backend's devices"
_NO_METER = "no meter tells who is on the GPUs; name the backend's devices"

log = structlog.get_logger(__name__)


def discovery_of(
    backends: Backends,
    probes: Callable[[], Iterable[Probe]],
    *,
    clock: Clock,
    on_usage: Callable[[Usage], None],
) -> "Discovery":
    """What watches this host's processes for these backends, with the meters that are open."""
    beside = _Beside(clock)

    def gpus() -> GpuProcesses | None:
        if any(one.elsewhere and one.name == "nvml" for one in probes()):
            return beside.opened()
        return gpu_processes(one.collector for one in probes() if one.collector)

    return Discovery(
        backends.watched(),
        table=HostProcesses(),
        gpus=gpus,
        domains=lambda: [domain for one in probes() for domain in one.domains],
        clock=clock,
        on_placed=backends.place,
        on_usage=on_usage,
    )


class _Beside:
    """NVML opened once more, to tell who is on GPUs whose energy another process reads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._collector: NvmlCollector | None = None

    def opened(self) -> NvmlCollector | None:
        """The open collector; None where it cannot be opened now."""
        try:
            self._collector = self._collector or NvmlCollector(now_ns=self._clock.monotonic_ns)
        except CollectorError:
            return None
        with contextlib.suppress(ReadFailed):  # by reading it finds lost GPUs again
            self._collector.read()
        return self._collector


class Discovery:
    """Looks once a second; what it finds goes to `on_placed` and `on_usage`, in its thread.

    Nobody waits for it. What it cannot find out stays unknown.
    """

    def __init__(
        self,
        watched: Sequence[Watched],
        *,
        table: ProcessTable,
        gpus: Callable[[], GpuProcesses | None],
        domains: Callable[[], Iterable[Domain]],
        clock: Clock,
        on_placed: Callable[[Mapping[str, Placement]], None],
        on_usage: Callable[[Usage], None],
    ) -> None:
        self._followers = [Follower(one, table) for one in watched]
        self._table = table
        self._gpus = gpus
        self._domains = domains
        self._clock = clock
        self._on_placed = on_placed
        self._on_usage = on_usage
        self._last: tuple[int, int] | None = None
        """When it looked last, and the host's busy CPU time then."""
        self._stopping = threading.Event()
        self._looked = threading.Event()
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._run, name="melodi-processes", daemon=True)

    def start(self) -> None:
        if self._followers:
            self._thread.start()
        else:
            self._looked.set()

    def wait(self, seconds: float) -> bool:
        """Whether it has looked once, after so long at most."""
        return self._looked.wait(seconds)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    def look(self) -> None:
        """Look at all processes once, and tell what they did since the last look."""
        now_ns, busy_ns = self._clock.monotonic_ns(), self._table.busy_ns()
        seen = {one.watched.name: one.look(now_ns) for one in self._followers}
        domains = [one for one in self._domains() if _is_shared(one)]
        gpus = _gpu_view(self._gpus(), self._table, domains)
        placements = {name: _on_gpus(placement, gpus) for name, (placement, _) in seen.items()}
        self._on_placed(placements)
        last, self._last = self._last, (now_ns, busy_ns)
        if last is None:
            return
        cpu = cpu_parts({name: gained for name, (_, gained) in seen.items()}, busy_ns - last[1])
        for domain in domains:
            parts = _gpu_parts(domain, placements, gpus) if domain.kind is Kind.GPU else cpu
            if parts is not None:
                self._on_usage(
                    Usage(
                        domain=domain.name,
                        start_ns=last[0],
                        end_ns=now_ns,
                        shares=parts.shares,
                        reason=parts.reason,
                    )
                )

    def _run(self) -> None:
        ticks = Ticks(start_ns=self._clock.monotonic_ns(), period_ns=LOOK_EVERY_NS)
        while True:
            wait_ns = max(0, ticks.deadline_ns - self._clock.monotonic_ns())
            if self._stopping.wait(wait_ns / NS_PER_SECOND):
                return
            ticks.beat(self._clock.monotonic_ns())
            try:
                self.look()
                self._fault = None
            except Exception as error:  # noqa: BLE001  what is not known now may be in a second
                if self._fault != repr(error):
                    self._fault = repr(error)
                    log.warning("processes_not_seen", reason=self._fault)
            self._looked.set()


@dataclass(frozen=True, slots=True)
class _GpuView:
    """Who is on which GPU, by domain; a GPU that does not tell is not among them."""

    running: Mapping[str, Mapping[int, int | None]]
    busy: Mapping[str, Mapping[int, int]]
    reason: str | None = None
    """Why not all is known."""


def _gpu_view(
    meter: GpuProcesses | None, table: ProcessTable, domains: Iterable[Domain]
) -> _GpuView:
    gpus = [one.name for one in domains if one.kind is Kind.GPU]
    if meter is None:
        return _GpuView({}, {}, _NO_METER if gpus else None)
    running, busy = meter.running_processes(), meter.busy_processes()
    pids = table.parents().keys()
    known = {name: on for name, on in running.items() if on.keys() <= pids}
    reason = _STRANGERS if len(known) < len(running) else None
    if not running and gpus:
        reason = _NO_LISTS
    return _GpuView(known, busy, reason)


def _on_gpus(placement: Placement, gpus: _GpuView) -> Placement:
    """The placement with the GPUs that its processes are on."""
    if placement.found.presence is not Presence.FOUND:
        return placement
    names = {name for name, pids in gpus.running.items() if not placement.pids.isdisjoint(pids)}
    if not names and gpus.reason is not None:
        return replace(placement, gpus=None, gpu_reason=gpus.reason)
    return replace(placement, gpus=frozenset(names))


def _gpu_parts(domain: Domain, placements: Mapping[str, Placement], gpus: _GpuView) -> Parts | None:
    if domain.name not in gpus.running:
        return None
    found = Presence.FOUND
    return gpu_parts(
        {name: one.pids for name, one in placements.items() if one.found.presence is found},
        running=gpus.running[domain.name].keys(),
        busy=gpus.busy.get(domain.name),
    )


def _is_shared(domain: Domain) -> bool:
    """Whether anybody but backends may draw from it, in proportion to what processes do."""
    shared = domain.kind in (Kind.GPU, Kind.CPU, Kind.DRAM)
    return shared and domain.summable and not domain.exclusive and domain.origin is Origin.SENSOR
