"""Makes records of what the books say, has them stored, and tells those who wait for them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from melodi.daemon.compose import Privacy, begun, describe, with_energy
from melodi.daemon.pending import Pending, PendingRequests
from melodi.energy.accounts import MinuteAccounts
from melodi.energy.record import EnergyRecord
from melodi.energy.total import RequestEnergy
from melodi.inference.timeline import RequestTimeline
from melodi.metrics import Metrics
from melodi.store.kept import Kept
from melodi.store.records import Batch
from melodi.store.spool import Spool
from melodi.store.writer import RecordWriter

WRITER_BACKLOG = 100


class Delivery:
    """What becomes durable of a request: its begin line, and then its row.

    One thread owns it; `record` and `pending` are for any.
    """

    def __init__(
        self, *, host: str, writer: RecordWriter, spool: Spool, privacy: Privacy, metrics: Metrics
    ) -> None:
        self.pending = PendingRequests()
        self.spool = spool
        self._host = host
        self._writer = writer
        self._privacy = privacy
        self._metrics = metrics

    @property
    def is_behind(self) -> bool:
        """Whether the writer has much to do."""
        return self._writer.pending >= WRITER_BACKLOG

    def begin(self, new: Sequence[RequestTimeline]) -> None:
        """Bring the begin lines of new requests to disk, before any row of theirs."""
        self.spool.write([begun(timeline, host=self._host) for timeline in new])
        self._metrics.spooled(self.spool.records)

    def records(
        self, provisional: Mapping[str, RequestEnergy], final: Mapping[str, RequestEnergy]
    ) -> list[EnergyRecord]:
        """The rows to write; a load that nobody asked a prompt with has none."""
        rows = []
        for name, energy in {**provisional, **final}.items():
            pending = self.pending[name]
            if pending.timeline.load_only:
                continue
            row = self.record(pending, energy, provisional=name in provisional)
            rows.append(row)
            if not row.provisional:
                pending.composed = row
        for name in final:
            if self.pending[name].timeline.load_only:
                self.pending.forget(name)
        return rows

    def record(self, pending: Pending, energy: RequestEnergy, *, provisional: bool) -> EnergyRecord:
        """A request's record with this energy."""
        return with_energy(
            describe(pending.timeline, host=self._host, privacy=self._privacy),
            energy,
            provisional=provisional,
            conditions=pending.conditions,
            doubts=pending.doubts,
        )

    def write(
        self,
        records: list[EnergyRecord],
        *,
        minutes: tuple[MinuteAccounts, ...],
        kept: tuple[Kept, ...],
    ) -> None:
        """Hand all of it to the writer, if it is anything."""
        if not (records or minutes or kept):
            return
        batch = Batch(host=self._host, records=tuple(records), minutes=minutes, kept=kept)
        stored = self._writer.submit(batch)
        stored.add_done_callback(lambda done: self._on_stored(done, records))

    def _on_stored(self, done: Future[dict[str, int]], records: list[EnergyRecord]) -> None:
        """In the writer's thread: tell those who wait, now that it is durable."""
        written = done.exception() is None
        seqs = done.result() if written else {}
        self.spool.forget(
            one.id for one in records if one.id in seqs or (one.provisional and written)
        )
        for record in records:
            if record.provisional:
                continue
            if record.id in seqs:
                self._metrics.requests.final(record)
            self.pending.settle(record, seqs.get(record.id))
