"""The parts of one running MELODI, and what it answers with them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from collectors.base import Domain, Measure
from collectors.registry import Probe
from melodi.api.apart import Job, apart
from melodi.clock import NS_PER_SECOND, Clock
from melodi.config import Settings, data_folder
from melodi.daemon.backends import Backends
from melodi.daemon.bookkeeper import Bookkeeper
from melodi.daemon.compose import Privacy
from melodi.daemon.delivery import Delivery
from melodi.daemon.discovery import discovery_of
from melodi.daemon.doctor import examine_open
from melodi.daemon.engines import EngineWatch
from melodi.daemon.installation import installation_key
from melodi.daemon.loaded import LoadedModels
from melodi.daemon.meters import plan_of
from melodi.daemon.own_cost import OwnCost
from melodi.daemon.power import Power
from melodi.daemon.telling import Telling
from melodi.daemon.traffic import Traffic
from melodi.daemon.windows import Windows
from melodi.energy.ledger import Ledger
from melodi.energy.policies import policies_for
from melodi.energy.record import EnergyRecord
from melodi.energy.tally import DomainFacts
from melodi.energy.window import UNKNOWN_REFRESH_NS
from melodi.errors import ConfigError, StoreError
from melodi.inference.dispatch import Dispatcher
from melodi.inference.request import Backend, PromptRequest
from melodi.logs import lines_lost
from melodi.metrics import Metrics
from melodi.sampling.apart import ApartSampler
from melodi.sampling.process import MeterProcess
from melodi.sampling.sampler import Sampler, Sampling
from melodi.sampling.station import Station
from melodi.store.figures import Rates
from melodi.store.records import RecordStore
from melodi.store.spool import Spool
from melodi.store.windows import WindowStore
from melodi.store.writer import RecordWriter

ANSWER_SECONDS = 1.0
"""How long the answer to a dispatched prompt waits beyond the settle time for its energy."""

log = structlog.get_logger(__name__)


class Runtime:
    """The parts of a running MELODI; what the API, the gateways and the CLI talk to.

    With a `process` the meters are read there, and `on_change` hears of those that come later.
    """

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
        process: MeterProcess | None = None,
        on_change: Callable[[list[Probe]], object] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.store = store
        self.writer = writer
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.probes = list(probes)
        self._period_of = plan_of(settings).period_ns
        domains = [domain for one in probes for domain in one.domains]
        self.backends_known = Backends(settings.backends, domains)
        self.books = self._bookkeeper(spool)
        self.sampler = self._sampler(process, on_change)
        self.discovery = discovery_of(
            self.backends_known,
            lambda: self.probes,
            clock=clock,
            on_usage=self.books.on_usage,
        )
        self.power = Power(
            self.sampler.curves,
            host=settings.host,
            clock=clock,
            in_flight=lambda: self.books.in_flight,
        )
        self.windows = Windows(windows, self.sampler.curves, host=settings.host, clock=clock)
        self.loaded = LoadedModels(
            self.backends_known,
            domains=lambda: self.sampler.domains,
            clock=clock,
            keep=partial(store.keep_loaded, settings.host),
        )
        self.engines = EngineWatch(
            self.books, self.backends_known, clock=clock, on_steps=self.books.on_steps
        )
        self.dispatcher = Dispatcher(self.engines, clock)
        self.telling = Telling(self.books)
        self.traffic = Traffic(
            self.engines, self.telling, clock, processes=settings.gateway.processes
        )
        self._introduce(domains)

    def _bookkeeper(self, spool: Spool) -> Bookkeeper:
        settings = self.settings
        ledger = Ledger(
            self._facts_of(self.probes),
            policies=partial(policies_for, settings.attribution.policy),
            quiet_ns=settings.attribution.idle_quiet,
            idle_watts=self.store.hosts.idle_watts(settings.host),
        )
        delivery = Delivery(
            host=settings.host,
            writer=self.writer,
            spool=spool,
            privacy=Privacy(settings.privacy.prompts, installation_key(data_folder())),
            metrics=self.metrics,
        )
        return Bookkeeper(
            ledger,
            delivery=delivery,
            clock=self.clock,
            metrics=self.metrics,
            backends=self.backends_known,
            feed=lambda: self.sampler.feed(),  # noqa: PLW0108  it is not there yet
        )

    def _sampler(
        self, process: MeterProcess | None, on_change: Callable[[list[Probe]], object]
    ) -> Sampling:
        clock, on_sample = self.clock, self.books.on_sample
        if process is None:
            return Sampler(self.probes, period_of=self._period_of, clock=clock, on_sample=on_sample)
        return ApartSampler(
            plan_of(self.settings),
            process,
            self.probes,
            clock=clock,
            on_sample=on_sample,
            on_change=on_change,
        )

    def _introduce(self, domains: list[Domain]) -> None:
        """Tell the metrics whom to ask."""
        others = (lambda: self.sampler.cpu_seconds, lambda: self.traffic.used.cpu_seconds)
        cost = OwnCost(self.sampler, others, lambda: self.books.idle_watts)
        self.metrics.know_own_cost(cost.cpu_seconds, cost.joules)
        self.metrics.know_log(lambda: lines_lost() + self.traffic.used.log_lines_lost)
        self.metrics.ledger.know_domains(domains)
        self.metrics.know_readiness(lambda: not self.faults())
        for station in self.sampler.stations:
            _watch(self.metrics, station)

    def follow(self, probes: Sequence[Probe]) -> None:
        """Measure with these meters from now on; what has begun keeps the domains it began with."""
        before = {station.name for station in self.sampler.stations}
        domains = [domain for one in probes for domain in one.domains]
        self.metrics.ledger.know_domains(domains)
        for facts in self._facts_of(probes):
            self.books.introduce(facts)
        self.probes = list(probes)
        self.sampler.follow(probes)
        for station in self.sampler.stations:
            if station.name not in before:
                _watch(self.metrics, station)
        for name in before - {station.name for station in self.sampler.stations}:
            self.metrics.forget_collector(name)
        try:
            self.backends_known.measured(domains)
        except ConfigError as error:
            log.warning("devices_unchanged", reason=str(error))

    def _facts_of(self, probes: Sequence[Probe]) -> list[DomainFacts]:
        return [
            _facts(domain, self._period_of(one.name)) for one in probes for domain in one.domains
        ]

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
        found = [*self.sampler.faults, *self.books.faults, *self.traffic.faults]
        if not self.sampler.domains:
            found.append("nothing can be measured on this host; see: melodi doctor")
        if self.writer.fault is not None:
            found.append(f"the database cannot be written: {self.writer.fault}")
        if self.writer.lost:
            found.append(f"{self.writer.lost} batches of records were lost; see the log")
        return found


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
