"""The windows of this host: begun, ended, and kept over a restart."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from melodi.clock import NS_PER_SECOND, Clock, to_datetime
from melodi.daemon.compose import clean
from melodi.energy.window import total_joules
from melodi.ids import new_id
from melodi.sampling.meters import EnergyCurve
from melodi.sampling.settle import Cuts, cuts_at, energies
from melodi.store.windows import Description, Window, WindowPage, WindowStatus, WindowStore


@dataclass(frozen=True, slots=True)
class _Open:
    window: Window
    start_ns: int
    cuts: "asyncio.Task[Cuts]"
    """Taken at once: curves do not remember for as long as a window may last."""


class Windows:
    """Begins and ends windows, and answers for those of before; lives in the event loop."""

    def __init__(
        self,
        store: WindowStore,
        curves: Mapping[str, EnergyCurve],
        *,
        host: str,
        clock: Clock,
    ) -> None:
        self._store = store
        self._curves = curves
        self._host = host
        self._clock = clock
        self._open: dict[str, _Open] = {}

    async def begin(self, said: Description) -> Window:
        """Begin a window now; StoreError where it cannot be kept."""
        start_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        window = _described(
            Window(id=new_id(wall_ns), host=self._host, started_at=to_datetime(wall_ns)), said
        )
        cuts = asyncio.create_task(cuts_at(self._curves, start_ns))
        self._open[window.id] = _Open(window, start_ns, cuts)
        try:
            await asyncio.to_thread(self._store.add, window)
        except BaseException:
            self._open.pop(window.id).cuts.cancel()
            raise
        return window

    async def end(self, window_id: str, said: Description) -> Window | None:
        """End a window now, and give it with its energy; None where it is not open here."""
        end_ns = self._clock.monotonic_ns()
        found = self._open.pop(window_id, None)
        if found is None:
            return None
        try:
            ended = await self._ended(found, end_ns, said)
            await asyncio.to_thread(self._store.replace, ended)
        except BaseException:
            self._open[window_id] = found
            raise
        return ended

    async def get(self, window_id: str) -> Window | None:
        return await asyncio.to_thread(self._store.get, window_id)

    async def page(self, *, cursor: str | None, limit: int) -> WindowPage:
        return await asyncio.to_thread(self._store.page, cursor=cursor, limit=limit)

    def close(self) -> None:
        """Let go of what is open; the next start says that it was interrupted."""
        for one in self._open.values():
            one.cuts.cancel()
        self._open.clear()

    async def _ended(self, found: _Open, end_ns: int, said: Description) -> Window:
        ends = await cuts_at(self._curves, end_ns)
        domains = energies(self._curves, await found.cuts, ends)
        return replace(
            _described(found.window, said),
            status=WindowStatus.ENDED,
            duration_seconds=(end_ns - found.start_ns) / NS_PER_SECOND,
            domains=domains,
            joules=total_joules(domains.values()),
        )


def _described(window: Window, said: Description) -> Window:
    """The window with what is said now laid over what was said before."""
    work, known = said.work, window.work
    return replace(
        window,
        name=window.name if said.name is None else clean(said.name),
        labels=window.labels | clean(dict(said.labels)),
        metadata=window.metadata | clean(dict(said.metadata)),
        samples=known.samples if work.samples is None else work.samples,
        macs=known.macs if work.macs is None else work.macs,
        params=known.params if work.params is None else work.params,
    )
