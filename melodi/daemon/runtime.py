"""One running MELODI: opens its parts in order, answers for them, closes them in reverse."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import structlog
from prometheus_client import CollectorRegistry

from collectors.base import Domain, Measure
from collectors.registry import Probe, probe
from melodi.clock import NS_PER_SECOND, Clock, to_datetime
from melodi.config import Settings, data_folder
from melodi.daemon.backends import Backends
from melodi.daemon.bookkeeper import Bookkeeper
from melodi.daemon.compose import Privacy
from melodi.daemon.ownership import owning
from melodi.energy.ledger import Ledger
from melodi.energy.policies import choose
from melodi.energy.record import EnergyRecord
from melodi.energy.tally import DomainFacts
from melodi.errors import ConfigError, StoreError
from melodi.inference.dispatch import Dispatcher
from melodi.inference.request import Backend, PromptRequest
from melodi.metrics import Metrics
from melodi.sampling.sampler import Sampler
from melodi.store.database import database_path, open_engine
from melodi.store.migrate import upgrade
from melodi.store.records import RecordStore
from melodi.store.writer import RecordWriter

UNKNOWN_REFRESH_NS = 100_000_000
"""Assumed where a sensor does not tell its refresh: the slowest known of NVML's."""
HOUSEKEEPING_SECONDS = 60
FIRST_EDGE_SECONDS = 1.0
ANSWER_SECONDS = 15.0
"""How long the answer to a dispatched prompt waits for its energy to be final."""
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
        self.backends_known = Backends(settings.backends, domains)
        self.books = Bookkeeper(
            Ledger(
                [_facts(domain) for domain in domains],
                policy=choose(settings.attribution.policy),
                quiet_ns=settings.attribution.idle_quiet,
                idle_watts=store.idle_watts(settings.host),
            ),
            host=settings.host,
            writer=writer,
            clock=clock,
            privacy=Privacy(settings.privacy.prompts, _installation_key()),
            metrics=self.metrics,
            backends=self.backends_known,
        )
        self.sampler = Sampler(
            collectors,
            periods_ns={one.name: _period_ns(settings, one.name) for one in collectors},
            clock=clock,
            on_sample=self.books.on_sample,
        )
        self.dispatcher = Dispatcher(self.books, clock)
        self.metrics.know_domains(domains)

    def preview(self, request_id: str) -> EnergyRecord | None:
        return self.books.preview(request_id)

    async def wait_final(self, request_id: str, seconds: float) -> EnergyRecord | None:
        return await self.books.wait_final(request_id, seconds)

    def backend(self, name: str) -> Backend:
        return self.backends_known.get(name)

    async def dispatch(self, request: PromptRequest) -> EnergyRecord:
        """Send a prompt; its record with the response, final if it could be in 15 s."""
        timeline = await self.dispatcher.dispatch(request)
        return replace(await self.final(timeline.id, ANSWER_SECONDS), response=timeline.response)

    async def final(self, request_id: str, seconds: float) -> EnergyRecord:
        """The record of a request that has ended, final if it can be in so many seconds.

        Raises StoreError where the record could not be kept.
        """
        record = await self.books.wait_final(request_id, seconds) or self.preview(request_id)
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
                "mean_power_watts": self.sampler.curves[domain.name].mean_watts(NS_PER_SECOND),
                "description": domain.description,
            }
            for domain in self.sampler.domains
        ]

    async def backends(self) -> list[dict[str, Any]]:
        return await self.backends_known.listing()

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
        writer = RecordWriter(store)
        stack.push_async_callback(asyncio.to_thread, writer.close, WRITER_GRACE_SECONDS)
        left = await asyncio.to_thread(store.orphans, settings.host)
        if left:
            log.warning("unfinished_records_closed", count=left)
        if probes is None:
            probes = await asyncio.to_thread(probe_meters, settings, clock)
        runtime = Runtime(settings, clock=clock, probes=probes, store=store, writer=writer)
        await asyncio.to_thread(_keep_inventory, runtime)
        stack.push_async_callback(asyncio.to_thread, _keep_idle, runtime)
        stack.callback(runtime.sampler.stop)
        stack.push_async_callback(asyncio.to_thread, runtime.books.stop, BOOKS_GRACE_SECONDS)
        stack.push_async_callback(runtime.dispatcher.close)
        runtime.sampler.start()
        runtime.books.start()
        housekeeping = asyncio.create_task(_housekeeping(runtime))
        stack.push_async_callback(_cancelled, housekeeping)
        await _first_edges(runtime.sampler)
        yield runtime


def probe_meters(settings: Settings, clock: Clock) -> list[Probe]:
    """Try the meters that the settings ask for; ConfigError for one that does not exist."""
    try:
        return probe(
            settings.collectors.use,
            now_ns=clock.monotonic_ns,
            sysfs_root=settings.collectors.sysfs_root,
            simulated_url=settings.collectors.simulated,
        )
    except ValueError as error:
        raise ConfigError(f"collectors.use: {error}") from None


def _lock(settings: Settings, api_url: str | None) -> AbstractContextManager[None]:
    """The lock of this host's books: beside the database where that is a file."""
    url = settings.database.url
    folder = database_path(url).parent if url.startswith("sqlite") else data_folder()
    return owning(folder, host=settings.host, database_url=url, api_url=api_url)


async def _housekeeping(runtime: Runtime) -> None:
    """Once a minute: who are the backends, and what has been learned of idle power."""
    while True:
        await runtime.backends_known.look()
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        await asyncio.to_thread(_keep_idle, runtime)


async def _first_edges(sampler: Sampler) -> None:
    """Let the curves begin, so that the first request is measured; a dead sensor waits for none."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_EDGE_SECONDS):
            while not all(curve.edges for curve in sampler.curves.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


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


def _facts(domain: Domain) -> DomainFacts:
    return DomainFacts(
        name=domain.name,
        kind=domain.kind.value,
        scope=domain.scope,
        source=domain.source,
        origin=domain.origin.value,
        refresh_ns=domain.refresh_ns or UNKNOWN_REFRESH_NS,
        max_watts=domain.max_power_watts,
        counter=domain.measure is Measure.COUNTER,
        estimated=domain.estimated,
        exclusive=domain.exclusive,
    )


def _period_ns(settings: Settings, collector: str) -> int:
    fast = collector in ("nvml", "simulated")
    return settings.sampling.nvml_period if fast else settings.sampling.rapl_period


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / NS_PER_SECOND


def _installation_key() -> bytes:
    """This installation's secret for prompt hashes, made at the first start."""
    path = data_folder() / "installation.key"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    key = secrets.token_bytes(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}; set XDG_DATA_HOME to a writable folder"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key
