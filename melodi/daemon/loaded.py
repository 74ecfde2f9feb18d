"""Looks every few seconds which models the backends hold, and on which GPUs."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

import structlog

from collectors.base import Domain, Kind
from melodi.clock import NS_PER_MINUTE, NS_PER_SECOND, Clock
from melodi.daemon.backends import Backends
from melodi.inference.loaded import LoadedModel, loaded_models
from melodi.store.loaded import NOBODY, LoadedMinute

PERIOD_SECONDS = 10
MOST_NS = 60 * NS_PER_SECOND
"""After a longer pause nobody knows what was loaded meanwhile."""

log = structlog.get_logger(__name__)


class LoadedModels:
    """Adds up for how long each model was loaded, as `keep` is given it."""

    def __init__(
        self,
        backends: Backends,
        *,
        domains: Callable[[], Sequence[Domain]],
        clock: Clock,
        keep: Callable[[Sequence[LoadedMinute]], None],
    ) -> None:
        self._backends = backends
        self._domains = domains
        self._clock = clock
        self._keep = keep
        self._held: dict[str, tuple[LoadedModel, ...]] = {}
        self._looked_ns: int | None = None

    async def run(self) -> None:
        """Look again and again; a fault is said, and the next look may do better."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  what keeps models warm is asked again
                log.warning("loaded_models_not_kept", reason=repr(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        """Ask every backend, and keep what it held since it was last asked.

        What was held at the last look counts until this one.
        """
        gpus = {one.name for one in self._domains() if one.kind is Kind.GPU}
        asked = [one for one in self._backends if gpus & set(self._backends.domains_of(one.name))]
        if not asked:
            return
        found = await asyncio.gather(*(loaded_models(one) for one in asked))
        now_ns = self._clock.monotonic_ns()
        since_ns, self._looked_ns = self._looked_ns, now_ns
        if since_ns is not None and now_ns - since_ns <= MOST_NS:
            await asyncio.to_thread(self._keep, self._minutes(gpus, since_ns, now_ns))
        for backend, models in zip(asked, found, strict=True):
            if models is not None:
                self._held[backend.name] = models
        self._backends.hold(self._held)

    def _minutes(self, gpus: set[str], since_ns: int, now_ns: int) -> list[LoadedMinute]:
        sums: dict[tuple[str, str, str], int | None] = {}
        for gpu in gpus:
            sums[gpu, NOBODY, NOBODY] = None
        for backend, models in self._held.items():
            own = sorted(gpus & set(self._backends.domains_of(backend)))
            for model in models:
                size = model.vram_bytes
                for gpu in own:
                    # What is spread over several devices is taken to be spread evenly.
                    sums[gpu, backend, model.name] = None if size is None else size // len(own)
        offset_ns = self._clock.wall_ns() - self._clock.monotonic_ns()
        return [
            LoadedMinute(
                domain=gpu,
                minute=minute,
                backend=backend,
                model=model,
                seconds=seconds,
                vram_byte_seconds=None if size is None else size * seconds,
            )
            for minute, seconds in _by_minute(since_ns + offset_ns, now_ns + offset_ns)
            for (gpu, backend, model), size in sums.items()
        ]


def _by_minute(start_ns: int, end_ns: int) -> list[tuple[int, float]]:
    """The seconds of a stretch of wall time in each of its minutes."""
    found: dict[int, int] = defaultdict(int)
    while start_ns < end_ns:
        minute = start_ns // NS_PER_MINUTE
        until_ns = min(end_ns, (minute + 1) * NS_PER_MINUTE)
        found[minute] += until_ns - start_ns
        start_ns = until_ns
    return [(minute, ns / NS_PER_SECOND) for minute, ns in found.items()]
