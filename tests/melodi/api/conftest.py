"""The API on a daemon made of a real store and whatever a test puts into its memory."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from energy_records import make_record
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient
from store_fixtures import *  # noqa: F403

from melodi.api.apart import Job, apart
from melodi.api.app import create_api
from melodi.clock import VirtualClock
from melodi.energy.record import EnergyRecord
from melodi.errors import BackendError
from melodi.inference.request import Backend, BackendKind, PromptRequest
from melodi.store.database import open_engine
from melodi.store.figures import Rates
from melodi.store.records import Batch, RecordStore


class FakeDaemon:
    """What the API asks of a daemon, from memory."""

    def __init__(self, store: RecordStore, url: str) -> None:
        self.store = store
        self.url = url
        self.clock = VirtualClock()
        self.registry = CollectorRegistry()
        self.previews: dict[str, EnergyRecord] = {}
        self.finals: dict[str, EnergyRecord] = {}
        self.waits: list[float] = []
        self.sent: list[PromptRequest] = []
        self.trouble: list[str] = []
        self.rates = Rates()
        self.jobs: list[Job] = []
        self.refusal: Exception | None = None

    def add(self, *records: EnergyRecord) -> None:
        """Store records."""
        for record in records:
            self.store.apply([Batch(host=record.host, records=(record,))])

    def preview(self, request_id: str) -> EnergyRecord | None:
        return self.previews.get(request_id)

    async def wait_final(self, request_id: str, seconds: float) -> EnergyRecord | None:
        self.waits.append(seconds)
        await asyncio.sleep(0)
        return self.finals.get(request_id)

    def backend(self, name: str) -> Backend:
        if name != "ollama":
            raise BackendError(f"there is no backend {name!r}; configured are: ollama")
        return Backend(name=name, kind=BackendKind.OLLAMA, url="http://127.0.0.1:11434")

    async def dispatch(self, request: PromptRequest) -> EnergyRecord:
        if self.refusal is not None:
            raise self.refusal
        self.sent.append(request)
        return make_record(7, response="four", tags=dict(request.tags))

    def domains(self) -> list[dict[str, Any]]:
        return [{"name": "package:0", "idle_watts": None}]

    async def backends(self) -> list[dict[str, Any]]:
        return [{"name": "ollama", "up": False}]

    async def doctor(self) -> dict[str, Any]:
        return {"collectors": [], "backends": await self.backends(), "measurable": False}

    def apart(self, job: Job) -> AsyncGenerator[bytes]:
        self.jobs.append(job)
        return apart(self.url, job)

    def faults(self) -> list[str]:
        return self.trouble


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[sa.Engine]:
    """An empty database."""
    engine = open_engine(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture
def daemon(engine: sa.Engine) -> FakeDaemon:
    """A daemon with an empty store."""
    return FakeDaemon(RecordStore(engine), str(engine.url))


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[TestClient]:
    """A client on this machine; a defect shows as the answer that it gives."""
    app = create_api(daemon, names=("melodi.example",))
    with TestClient(app, base_url="http://127.0.0.1:8340", raise_server_exceptions=False) as client:
        yield client
