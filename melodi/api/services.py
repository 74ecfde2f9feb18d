"""What the API needs of the daemon."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from melodi.api.apart import Job
from melodi.clock import Clock
from melodi.energy.record import EnergyRecord
from melodi.inference.request import Backend, PromptRequest
from melodi.sampling.power import PowerNow, PowerSeries
from melodi.store.books import LedgerBy, LedgerLine
from melodi.store.figures import Rates
from melodi.store.queries import Page, RequestFilter
from melodi.store.records import Answer
from melodi.store.windows import Description, Window, WindowPage


class RecordReader(Protocol):
    """Reads what is stored; its methods may block, so they run in threads."""

    def get(self, request_id: str) -> EnergyRecord | None: ...

    def page(
        self, wanted: RequestFilter, *, cursor: str | None = None, limit: int = 50
    ) -> Page: ...

    def ledger(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        by: LedgerBy = "domain",
    ) -> Sequence[LedgerLine]: ...

    def ask(self, question: Callable[[sa.Connection], Answer], /) -> Answer: ...


class WindowKeeper(Protocol):
    """Begins and ends windows, and answers for all of them."""

    async def begin(self, said: Description) -> Window: ...

    async def end(self, window_id: str, said: Description) -> Window | None:
        """The window with its energy; None where it is not open here."""
        ...

    async def get(self, window_id: str) -> Window | None: ...

    async def page(self, *, cursor: str | None, limit: int) -> WindowPage: ...


class PowerView(Protocol):
    """What the host draws, as finely as it may be told."""

    @property
    def host(self) -> str: ...

    def live(self) -> AsyncIterator[PowerNow]:
        """The latest power again and again, until the daemon stops."""
        ...

    def around(self, started_at: datetime, duration_seconds: float) -> dict[str, PowerSeries]:
        """Each domain's power around a stretch of time; without those that are forgotten."""
        ...


class Services(Protocol):
    """The running daemon, as the API sees it; nothing here blocks but what says so."""

    @property
    def clock(self) -> Clock: ...

    @property
    def store(self) -> RecordReader: ...

    @property
    def windows(self) -> WindowKeeper: ...

    @property
    def power(self) -> PowerView: ...

    @property
    def registry(self) -> CollectorRegistry: ...

    def preview(self, request_id: str) -> EnergyRecord | None:
        """A record still being reckoned, newer than what is stored; None once it is final.

        It may wait for the books: call it in a thread.
        """
        ...

    async def wait_final(self, request_id: str, seconds: float) -> EnergyRecord | None:
        """The final record, or None where it is not final after `seconds`."""
        ...

    def backend(self, name: str) -> Backend:
        """The backend of this name; BackendError where none is configured."""
        ...

    async def dispatch(self, request: PromptRequest) -> EnergyRecord:
        """Send a prompt and give its record with the response; BackendError where it cannot be."""
        ...

    def domains(self) -> Sequence[dict[str, Any]]: ...

    async def backends(self) -> Sequence[dict[str, Any]]: ...

    async def doctor(self) -> dict[str, Any]:
        """Meters and backends as they are now (the JSON of `melodi doctor`)."""
        ...

    @property
    def rates(self) -> Rates: ...

    def apart(self, job: Job) -> AsyncGenerator[bytes]:
        """The bytes that answer `job`, from a process of its own; StoreError where it fails."""
        ...

    def faults(self) -> Sequence[str]:
        """What keeps the daemon from doing its work; none: it is ready."""
        ...
