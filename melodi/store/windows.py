"""Windows as they are stored: named stretches of time, and the energy of those that ended."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from melodi.energy.record import Quality
from melodi.energy.window import WindowEnergy
from melodi.energy.workload import Workload
from melodi.errors import StoreError
from melodi.store import dialect
from melodi.store.database import reading
from melodi.store.schema import windows


class WindowStatus(StrEnum):
    """Where a window stands."""

    OPEN = "open"
    ENDED = "ended"
    INTERRUPTED = "interrupted"
    """The daemon that had opened it stopped; its energy is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a window's owner says of it, at its begin and again at its end."""

    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    work: Workload = field(default_factory=Workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A named stretch of time. Every field is a column of the table `windows`."""

    id: str
    host: str
    name: str | None = None
    status: WindowStatus = WindowStatus.OPEN
    started_at: datetime
    duration_seconds: float | None = None
    joules: float | None = None
    """Over the domains that may be summed; None where one of them is unknown."""
    domains: dict[str, WindowEnergy] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    samples: int | None = None
    macs: int | None = None
    params: int | None = None

    @property
    def work(self) -> Workload:
        return Workload(samples=self.samples, macs=self.macs, params=self.params)


@dataclass(frozen=True, slots=True)
class WindowPage:
    """Some windows, newest first, and the cursor of the next ones; None: that is all."""

    items: tuple[Window, ...]
    next_cursor: str | None


class WindowStore:
    """Windows in one database; safe to use from several threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self._reading = engine
        self._writing = dialect.writing(engine)

    def add(self, window: Window) -> None:
        """Keep a new window; its host must be known."""
        with self._write() as connection:
            connection.execute(sa.insert(windows).values(_to_row(window)))

    def replace(self, window: Window) -> None:
        """Keep what has become of a window."""
        statement = sa.update(windows).where(windows.c.id == window.id)
        with self._write() as connection:
            connection.execute(statement.values(_to_row(window)))

    def interrupt(self, host: str) -> int:
        """Say of each of the host's open windows that it was interrupted; gives their number."""
        statement = (
            sa.update(windows)
            .where(windows.c.host == host, windows.c.status == WindowStatus.OPEN)
            .values(status=WindowStatus.INTERRUPTED)
        )
        with self._write() as connection:
            return connection.execute(statement).rowcount

    def get(self, window_id: str) -> Window | None:
        """The window of this id; None where there is none."""
        with reading(self._reading) as connection:
            found = connection.execute(sa.select(windows).where(windows.c.id == window_id))
            row = found.mappings().one_or_none()
        return None if row is None else _to_window(row)

    def page(self, *, cursor: str | None, limit: int) -> WindowPage:
        """Windows newest first, those after `cursor` only."""
        # One more than asked for tells whether there is a next page.
        statement = sa.select(windows).order_by(windows.c.id.desc()).limit(limit + 1)
        if cursor is not None:
            statement = statement.where(windows.c.id < cursor)
        with reading(self._reading) as connection:
            rows = connection.execute(statement).mappings().all()
        items = tuple(_to_window(row) for row in rows[:limit])
        return WindowPage(items, items[-1].id if len(rows) > limit else None)

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        try:
            with self._writing.begin() as connection:
                yield connection
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            reason = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise StoreError(
                f"a window cannot be kept: {reason}; see to the database, and ask again"
            ) from error


def _to_row(window: Window) -> dict[str, Any]:
    return {one.name: getattr(window, one.name) for one in fields(Window)}


def _to_window(row: Mapping[Any, Any]) -> Window:
    return Window(
        **{
            **row,
            "status": WindowStatus(row["status"]),
            "domains": {name: _to_energy(value) for name, value in row["domains"].items()},
        }
    )


def _to_energy(value: Mapping[str, Any]) -> WindowEnergy:
    return WindowEnergy(
        **{**value, "quality": Quality(value["quality"]), "reasons": tuple(value["reasons"])}
    )
