"""What the API needs of the daemon."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from melodi.clock import Clock
from melodi.energy.record import EnergyRecord
from melodi.inference.request import Backend, PromptRequest
from melodi.store.books import LedgerBy, LedgerLine
from melodi.store.queries import Page, RequestFilter


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


class Services(Protocol):
    """The running daemon, as the API sees it; nothing here blocks."""

    @property
    def clock(self) -> Clock: ...

    @property
    def store(self) -> RecordReader: ...

    @property
    def registry(self) -> CollectorRegistry: ...

    def preview(self, request_id: str) -> EnergyRecord | None:
        """A record still being reckoned, newer than what is stored; None once it is final."""
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

    def faults(self) -> Sequence[str]:
        """What keeps the daemon from doing its work; none: it is ready."""
        ...
