"""A daemon's parts in virtual time: hours of a host with faults in it, in seconds of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nvml_stub import NvmlStub
from powercap_tree import PowercapTree

from melodi.clock import NS_PER_SECOND, VirtualClock
from melodi.config import BackendSettings, Collectors, Database, Settings
from melodi.daemon.meters import plan_of, probe_meters
from melodi.daemon.runtime import Runtime
from melodi.energy.ledger import LATEST_NS
from melodi.energy.record import EnergyRecord, Status
from melodi.inference.backends.base import RequestFacts
from melodi.inference.recording import new_timeline
from melodi.inference.timeline import RequestTimeline
from melodi.sampling.watch import MeterWatch
from melodi.store.books import LedgerLine
from melodi.store.database import open_engine
from melodi.store.migrate import upgrade
from melodi.store.records import RecordStore
from melodi.store.spool import Spool
from melodi.store.windows import WindowStore
from melodi.store.writer import RecordWriter

TURN_NS = NS_PER_SECOND // 10
GPU_WATTS = (300, 200)
"""What the GPUs draw, all the time."""


class VirtualHost:
    """A host with scripted GPUs and zones of constant power; its meters may fail."""

    def __init__(
        self,
        runtime: Runtime,
        clock: VirtualClock,
        *,
        gpus: NvmlStub,
        tree: PowercapTree,
        watts: dict[str, float],
    ) -> None:
        self.runtime = runtime
        self.clock = clock
        self.watts = watts
        """Of zones, by the name of each in the tree; what is not in it does not move."""
        self._gpus, self._tree = gpus, tree
        self._drawn_uj = dict.fromkeys(watts, 0.0)
        self._moved_ns = clock.monotonic_ns()
        self._turn_ns = clock.monotonic_ns()
        self.watch = MeterWatch(
            plan_of(runtime.settings), runtime.probes, clock=clock, on_change=runtime.follow
        )

    def run(self, seconds: float) -> None:
        """Let so much time pass, as the daemon's threads would see it."""
        end_ns = self.clock.monotonic_ns() + round(seconds * NS_PER_SECOND)
        while (now_ns := self.clock.monotonic_ns()) < end_ns:
            due_ns = self.runtime.sampler.next_deadline_ns or end_ns
            self.clock.advance(max(0, min(due_ns, self._turn_ns, end_ns) - now_ns))
            self.move()
            self.runtime.sampler.beat()
            if self.clock.monotonic_ns() >= self._turn_ns:
                self._turn_ns += TURN_NS
                self.runtime.books._turn(self.clock.monotonic_ns())

    def move(self) -> None:
        """Let the counters show the present."""
        now_ns = self.clock.monotonic_ns()
        self._gpus.set_time_ns(now_ns)
        for zone, watts in self.watts.items():
            # W x ns is nJ.
            drawn_uj = self._drawn_uj.get(zone, 0.0) + watts * (now_ns - self._moved_ns) / 1_000
            self._drawn_uj[zone] = drawn_uj
            if self._tree.energy_file(zone).exists():
                self._tree.set(zone, round(drawn_uj))
        self._moved_ns = now_ns

    def begin(self) -> RequestTimeline:
        """A request is sent."""
        timeline = new_timeline(
            self.runtime.backend("b"), self.clock, facts=RequestFacts(model="m")
        )
        self.runtime.books.begin(timeline)
        return timeline

    def end(self, timeline: RequestTimeline) -> None:
        """It is answered to its end."""
        timeline.end_ns = self.clock.monotonic_ns()
        timeline.status, timeline.http_status, timeline.reached = Status.OK, 200, True
        self.runtime.books.end(timeline)

    def request(self, seconds: float) -> str:
        """A request that is served for so long; its id."""
        timeline = self.begin()
        self.run(seconds)
        self.end(timeline)
        return timeline.id

    def close(self) -> None:
        """Close the books on everything."""
        while self.runtime.books._turn(self.clock.monotonic_ns() + LATEST_NS, last=True):
            pass
        self.runtime.writer.close(10)

    def record(self, request_id: str) -> EnergyRecord:
        found = self.runtime.store.get(request_id)
        assert found is not None
        assert not found.provisional
        return found

    def ledger(self) -> dict[str, LedgerLine]:
        """By domain; each closes to the last joule."""
        lines = {one.domain: one for one in self.runtime.store.ledger()}
        for one in lines.values():
            assert abs(one.residual_joules) <= 1e-9 * one.measured_joules
        return lines


@contextmanager
def virtual_host(
    folder: Path,
    *,
    gpus: NvmlStub,
    tree: PowercapTree,
    watts: dict[str, float],
    use: str | list[str] = "auto",
) -> Iterator[VirtualHost]:
    """A host that has just started, with its database in `folder`."""
    clock = VirtualClock()
    settings = Settings(
        host="test",
        database=Database(url=f"sqlite:///{folder / 'melodi.db'}"),
        collectors=Collectors(use=use, sysfs_root=tree.root),
        backends=[BackendSettings(name="b", kind="vllm", url="http://127.0.0.1:9")],
    )
    upgrade(settings.database.url)
    engine = open_engine(settings.database.url)
    store, spool = RecordStore(engine), Spool(folder / "spool")
    runtime = Runtime(
        settings,
        clock=clock,
        probes=probe_meters(settings, clock),
        store=store,
        writer=RecordWriter(store),
        spool=spool,
        windows=WindowStore(engine),
    )
    host = VirtualHost(runtime, clock, gpus=gpus, tree=tree, watts=watts)
    try:
        yield host
    finally:
        runtime.sampler.stop()
        runtime.writer.close(10)
        spool.close()
        engine.dispose()
