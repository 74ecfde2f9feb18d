"""One running MELODI: opens its parts in order, answers for them, closes them in reverse."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import structlog
from prometheus_client import CollectorRegistry

from collectors.base import Domain, Measure
from collectors.registry import Probe
from melodi.api.apart import Job, apart
from melodi.clock import NS_PER_SECOND, Clock, to_datetime
from melodi.config import Settings, data_folder
from melodi.daemon.backends import Backends
from melodi.daemon.bookkeeper import Bookkeeper
from melodi.daemon.compose import Privacy
from melodi.daemon.doctor import examine_open
from melodi.daemon.installation import installation_key
from melodi.daemon.meters import period_ns, probe_meters
from melodi.daemon.ownership import owning
from melodi.daemon.power import Power
from melodi.daemon.recovery import recover
from melodi.daemon.windows import Windows
from melodi.energy.ledger import Ledger
from melodi.energy.policies import policies_for
from melodi.energy.record import EnergyRecord
from melodi.energy.tally import DomainFacts
from melodi.energy.window import UNKNOWN_REFRESH_NS
from melodi.errors import StoreError
from melodi.inference.dispatch import Dispatcher
from melodi.inference.request import Backend, PromptRequest
from melodi.metrics import Metrics
from melodi.sampling.sampler import Sampler
from melodi.sampling.settle import first_edges
from melodi.sampling.station import Station
from melodi.store.database import database_path, open_engine
from melodi.store.figures import Rates
from melodi.store.migrate import upgrade
from melodi.store.records import RecordStore
from melodi.store.spool import Spool, spool_folder
from melodi.store.windows import WindowStore
from melodi.store.writer import RecordWriter

HOUSEKEEPING_SECONDS = 60
ANSWER_SECONDS = 1.0
"""How long the answer to a dispatched prompt waits beyond the settle time for its energy."""
BOOKS_GRACE_SECONDS = 5.0
WRITER_GRACE_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Runtime:
    """The parts of a running MELODI; what the API, the gateways and the CLI talk to."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        probes: Sequence[Probe],
        store: RecordStore,
        writer: RecordWriter,
        spool: Spool,
        windows: WindowStore,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.store = store
        self.writer = writer
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.probes = list(probes)
        collectors = [one.collector for one in probes if one.collector is not None]
        domains = [domain for one in collectors for domain in one.domains]
        periods_ns = {one.name: period_ns(settings, one.name) for one in collectors}
        self.backends_known = Backends(settings.backends, domains)
        self.books = Bookkeeper(
            Ledger(
                [
                    _facts(domain, periods_ns[one.name])
                    for one in collectors
                    for domain in one.domains
                ],
                policies=partial(policies_for, settings.attribution.policy),
                quiet_ns=settings.attribution.idle_quiet,
                idle_watts=store.idle_watts(settings.host),
            ),
            host=settings.host,
            writer=writer,
            spool=spool,
            clock=clock,
            privacy=Privacy(settings.privacy.prompts, installation_key(data_folder())),
            metrics=self.metrics,
            backends=self.backends_known,
        )
        self.sampler = Sampler(
            collectors,
            periods_ns=periods_ns,
            clock=clock,
            on_sample=self.books.on_sample,
        )
        self.power = Power(
            self.sampler.curves,
            host=settings.host,
            clock=clock,
            in_flight=lambda: self.books.in_flight,
        )
        self.windows = Windows(windows, self.sampler.curves, host=settings.host, clock=clock)
        self.dispatcher = Dispatcher(self.books, clock)
        self.metrics.know_domains(domains)
        for station in self.sampler.stations:
            _watch(self.metrics, station)

    def preview(self, request_id: str) -> EnergyRecord | None:
        return self.books.preview(request_id)

    async def wait_final(self, request_id: str, seconds: float) -> EnergyRecord | None:
        return await self.books.wait_final(request_id, seconds)

    def backend(self, name: str) -> Backend:
        return self.backends_known.get(name)

    async def dispatch(self, request: PromptRequest) -> EnergyRecord:
        """Send a prompt; its record with the response, final if it was alone."""
        timeline = await self.dispatcher.dispatch(request)
        seconds = self.books.settle_seconds + ANSWER_SECONDS
        return replace(await self.final(timeline.id, seconds), response=timeline.response)

    async def final(self, request_id: str, seconds: float) -> EnergyRecord:
        """The record of a request that has ended, final if it can be in so many seconds.

        Raises StoreError where the record could not be kept.
        """
        record = await self.books.wait_final(request_id, seconds)
        record = record or await asyncio.to_thread(self.preview, request_id)
        record = record or await asyncio.to_thread(self.store.get, request_id)
        if record is None:
            raise StoreError(f"the record of request {request_id} is lost; see the log for why")
        return record

    def domains(self) -> list[dict[str, Any]]:
        idle = self.books.idle_watts
        return [
            {
                "name": domain.name,
                "kind": domain.kind,
                "scope": domain.scope,
                "source": domain.source,
                "origin": domain.origin,
                "estimated": domain.estimated,
                "summable": domain.summable,
                "refresh_seconds": _seconds(domain.refresh_ns),
                "max_power_watts": domain.max_power_watts,
                "idle_watts": idle.get(domain.name),
                "mean_power_watts": self.power.mean_watts(domain.name),
                "description": domain.description,
            }
            for domain in self.sampler.domains
        ]

    async def backends(self) -> list[dict[str, Any]]:
        return await self.backends_known.listing()

    async def doctor(self) -> dict[str, Any]:
        now_ns = self.clock.monotonic_ns()
        return await examine_open(
            self.probes, self.sampler.curves, self.backends_known, now_ns=now_ns
        )

    @property
    def rates(self) -> Rates:
        return Rates(**self.settings.carbon.model_dump())

    def apart(self, job: Job) -> AsyncGenerator[bytes]:
        return apart(self.settings.database.url, job)

    def faults(self) -> list[str]:
        found = [*self.sampler.faults, *self.books.faults]
        if not self.sampler.domains:
            found.append("nothing can be measured on this host; see: melodi doctor")
        if self.writer.fault is not None:
            found.append(f"the database cannot be written: {self.writer.fault}")
        if self.writer.lost:
            found.append(f"{self.writer.lost} batches of records were lost; see the log")
        return found


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock,
    probes: Sequence[Probe] | None = None,
    api_url: str | None = None,
) -> AsyncIterator[Runtime]:
    """A MELODI that measures and records while the context lasts.

    Takes the lock of this host and database, opens the database, then the meters, then begins
    to sample; closes in reverse, so that the last requests still get their energy. `probes`
    replaces looking for meters. Raises StoreError and ConfigError where that cannot be, among
    them AlreadyOwned.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(_lock(settings, api_url))
        await asyncio.to_thread(upgrade, settings.database.url)
        engine = open_engine(settings.database.url)
        stack.callback(engine.dispose)
        store = RecordStore(engine)
        spool = _spool(settings)
        await asyncio.to_thread(recover, store, spool.folder, host=settings.host)
        stack.callback(spool.close)
        writer = RecordWriter(store)
        stack.push_async_callback(asyncio.to_thread, writer.close, WRITER_GRACE_SECONDS)
        if probes is None:
            probes = await asyncio.to_thread(probe_meters, settings, clock)
        windows = WindowStore(engine)
        await asyncio.to_thread(windows.interrupt, settings.host)
        runtime = Runtime(
            settings,
            clock=clock,
            probes=probes,
            store=store,
            writer=writer,
            spool=spool,
            windows=windows,
        )
        await asyncio.to_thread(_keep_inventory, runtime)
        stack.push_async_callback(asyncio.to_thread, _keep_idle, runtime)
        stack.callback(runtime.sampler.stop)
        stack.push_async_callback(asyncio.to_thread, runtime.books.stop, BOOKS_GRACE_SECONDS)
        stack.push_async_callback(runtime.dispatcher.close)
        stack.callback(runtime.windows.close)
        runtime.sampler.start()
        runtime.books.start()
        housekeeping = asyncio.create_task(_housekeeping(runtime))
        stack.push_async_callback(_cancelled, housekeeping)
        await first_edges(runtime.sampler.curves)
        yield runtime


def _lock(settings: Settings, api_url: str | None) -> AbstractContextManager[None]:
    """The lock of this host's books in this database."""
    return owning(
        _state_folder(settings),
        host=settings.host,
        database_url=settings.database.url,
        api_url=api_url,
    )


def _spool(settings: Settings) -> Spool:
    folder = spool_folder(
        _state_folder(settings), host=settings.host, database_url=settings.database.url
    )
    return Spool(folder)


def _state_folder(settings: Settings) -> Path:
    """Beside the database where it is a file, so that whoever shares it shares this too."""
    path = database_path(settings.database.url)
    return data_folder() if path is None else path.parent


async def _housekeeping(runtime: Runtime) -> None:
    """Once a minute: who are the backends, and what has been learned of idle power."""
    while True:
        try:
            await runtime.backends_known.look()
        except Exception as error:  # noqa: BLE001  the next round may do better
            log.warning("backends_not_asked", reason=repr(error))
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        await asyncio.to_thread(_keep_idle, runtime)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _keep_idle(runtime: Runtime) -> None:
    try:
        runtime.store.keep_idle_watts(runtime.settings.host, runtime.books.idle_watts)
    except Exception as error:  # noqa: BLE001  it will be learned again
        log.warning("idle_power_not_kept", reason=str(error))


def _keep_inventory(runtime: Runtime) -> None:
    host, now = runtime.settings.host, to_datetime(runtime.clock.wall_ns())
    machine_id = Path("/etc/machine-id")
    runtime.store.keep_host(
        host,
        seen_at=now,
        machine_id=machine_id.read_text().strip() if machine_id.exists() else None,
        cpu=_cpu_name(),
        inventory={
            "cpu_count": psutil.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "domains": [domain.name for domain in runtime.sampler.domains],
        },
    )
    runtime.store.keep_domains(host, runtime.sampler.domains, seen_at=now)


def _cpu_name() -> str | None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)


def _watch(metrics: Metrics, station: Station) -> None:
    """Let the metrics ask the collector's station, because one that hangs tells nothing."""
    metrics.know_collector(
        station.name, is_up=lambda: station.is_up, period_ns=lambda: station.period_ns
    )


def _facts(domain: Domain, polled_ns: int) -> DomainFacts:
    """What the ledger has to know of a domain; what is not polled is not seen to be renewed."""
    return DomainFacts(
        name=domain.name,
        kind=domain.kind.value,
        scope=domain.scope,
        source=domain.source,
        origin=domain.origin.value,
        refresh_ns=max(domain.refresh_ns or UNKNOWN_REFRESH_NS, polled_ns),
        max_watts=domain.max_power_watts,
        counter=domain.measure is Measure.COUNTER,
        estimated=domain.estimated,
        exclusive=domain.exclusive,
    )


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / NS_PER_SECOND
