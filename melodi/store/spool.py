"""Begin lines on disk: which requests had begun, should the process be killed.

Segments are files of JSON lines, one per request, each locked by the process that writes it. A
line is forgotten once the request has a row in the database; when most of a segment is
forgotten, the lines that remain move to a new one.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import sqlalchemy as sa
import structlog

from melodi.clock import to_datetime
from melodi.energy.record import EnergyRecord, Quality, Status

SLACK_BYTES = 1 << 20
"""How much longer than what it must hold a segment may grow."""

_SUFFIX = ".begun"

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Begun:
    """What is known of a request when it begins; a prompt's text stays out."""

    id: str
    host: str
    backend: str
    backend_kind: str
    model: str | None = None
    campaign: str | None = None
    task: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    streamed: bool | None = None
    attempt: int = 1
    wall_ns: int
    scheduled_wall_ns: int | None = None

    def interrupted(self) -> EnergyRecord:
        """The record of a request of which nothing more became known."""
        scheduled_ns = self.scheduled_wall_ns
        return EnergyRecord(
            id=self.id,
            provisional=False,
            host=self.host,
            backend=self.backend,
            backend_kind=self.backend_kind,
            model=self.model,
            campaign=self.campaign,
            task=self.task,
            tags=self.tags,
            streamed=self.streamed,
            attempt=self.attempt,
            status=Status.INTERRUPTED,
            started_at=to_datetime(self.wall_ns),
            scheduled_at=None if scheduled_ns is None else to_datetime(scheduled_ns),
            quality=Quality.NONE,
            quality_reasons=("daemon_stopped",),
        )


class Spool:
    """The begin lines of this process; one thread calls `write`, any thread `forget`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines: dict[str, bytes] = {}
        self._kept_bytes = 0
        self._forgotten: deque[str] = deque()
        self._segments: list[_Segment] = []
        self._fault: str | None = None

    @property
    def fault(self) -> str | None:
        """Why begin lines cannot be written now; None: they can, as far as is known."""
        return self._fault

    @property
    def records(self) -> int:
        """Requests that have begun and have no row in the database yet."""
        return len(self._lines)

    def write(self, begun: Sequence[Begun]) -> None:
        """Bring these to disk before it returns; where that fails `fault` says why.

        What could not be written is written with the next call.
        """
        self._drop_forgotten()
        new = {one.id: orjson.dumps(one) + b"\n" for one in begun}
        self._lines |= new
        self._kept_bytes += sum(map(len, new.values()))
        if not new and self._fault is None:
            return
        try:
            if self._needs_segment():
                self._move()
            else:
                self._segments[0].append(b"".join(new.values()))
        except OSError as error:
            if self._fault is None:
                _log.warning("spool_failing", folder=str(self.folder), reason=str(error))
            self._fault = f"{error.strerror} ({self.folder})"
        else:
            self._fault = None

    def forget(self, ids: Iterable[str]) -> None:
        """These have a row in the database, or never will need one."""
        self._forgotten.extend(ids)

    def close(self) -> None:
        """Remove the files, or leave them to the next start where lines remain."""
        self._drop_forgotten()
        for segment in self._segments:
            if not self._lines:
                segment.remove()
            segment.close()
        self._segments.clear()
        if self._lines:
            _log.warning("requests_without_a_row", count=self.records)

    def _drop_forgotten(self) -> None:
        while self._forgotten:
            line = self._lines.pop(self._forgotten.popleft(), b"")
            self._kept_bytes -= len(line)

    def _needs_segment(self) -> bool:
        if self._fault is not None or not self._segments:
            # After a failed write nobody knows how the segment ends.
            return True
        return self._segments[0].size_bytes > 2 * self._kept_bytes + SLACK_BYTES

    def _move(self) -> None:
        """Begin a segment with the lines that remain, then remove those before it."""
        segment = _Segment.create(self.folder)
        old, self._segments = self._segments, [segment, *self._segments]
        segment.append(b"".join(self._lines.values()))
        for one in old:
            one.remove()
            one.close()
        self._segments = [segment]


class _Segment:
    """A file that is locked while it is open."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.size_bytes = 0

    @classmethod
    def create(cls, folder: Path) -> "_Segment":
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            path = folder / f"{os.getpid()}-{time.time_ns()}{_SUFFIX}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Between the two calls somebody may have taken it for a dead process's, and removed it.
            if os.fstat(descriptor).st_nlink:
                return cls(path, descriptor)
            os.close(descriptor)

    def append(self, data: bytes) -> None:
        while data:
            written = os.write(self._descriptor, data)
            self.size_bytes += written
            data = data[written:]
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._descriptor)


def spool_folder(parent: Path, *, host: str, database_url: str) -> Path:
    """Where the spools of one host's books in one database are."""
    # Without the password: a new one does not make it another database.
    public = sa.make_url(database_url).render_as_string(hide_password=True)
    name = hashlib.sha256(f"{host}\0{public}".encode()).hexdigest()[:16]
    return parent / f"spool-{name}"


@contextlib.contextmanager
def left_behind(folder: Path) -> Iterator[list[Begun]]:
    """What dead processes had begun; their files are removed if the context ends well.

    A file that a living process holds is left alone. Raises OSError where one cannot be read.
    """
    with contextlib.ExitStack() as stack:
        paths = [path for path in sorted(folder.glob(f"*{_SUFFIX}")) if _lock(path, stack)]
        found = {one.id: one for path in paths for one in _read(path)}
        yield list(found.values())
        for path in paths:
            path.unlink(missing_ok=True)


def _lock(path: Path, stack: contextlib.ExitStack) -> bool:
    """True where nobody living holds it; the lock is kept as long as the stack."""
    try:
        file = stack.enter_context(path.open("rb"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


def _read(path: Path) -> Iterator[Begun]:
    """The whole lines; one that a crash or a full disk tore says nothing any more."""
    for line in path.read_bytes().splitlines():
        try:
            yield Begun(**orjson.loads(line))
        except (orjson.JSONDecodeError, TypeError):
            _log.warning("torn_spool_line", file=path.name, bytes=len(line))
