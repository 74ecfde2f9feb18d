"""What the host draws: now, live, and around a request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta

from melodi.clock import NS_PER_SECOND, Clock, to_datetime
from melodi.energy.window import summable
from melodi.sampling.meters import EnergyCurve
from melodi.sampling.power import (
    GPU_SLOT_NS,
    DomainPower,
    PowerNow,
    PowerPoint,
    PowerSeries,
    SlotPower,
    latest_power,
    power_between,
    slot_ns,
)


class Power:
    """Answers from the curves, as finely as power may leave the daemon."""

    def __init__(
        self,
        curves: Mapping[str, EnergyCurve],
        *,
        host: str,
        clock: Clock,
        in_flight: Callable[[], int],
    ) -> None:
        self.host = host
        self._curves = curves
        self._clock = clock
        self._in_flight = in_flight
        self._closing = asyncio.Event()

    def mean_watts(self, domain: str) -> float | None:
        """Mean power over the domain's latest slot."""
        found = latest_power(self._curves[domain], self._clock.monotonic_ns())
        return None if found is None else found.mean_watts

    def now(self) -> PowerNow:
        """Every domain's latest power."""
        now_ns = self._clock.monotonic_ns()
        domains = {
            name: _domain_power(curve, latest_power(curve, now_ns))
            for name, curve in self._curves.items()
        }
        added = summable(curve.domain for curve in self._curves.values())
        joules = [domains[name].joules for name in added]
        known = [one for one in joules if one is not None]
        return PowerNow(
            at=to_datetime(self._clock.wall_ns()),
            domains=domains,
            joules=sum(known) if known and len(known) == len(joules) else None,
            in_flight=self._in_flight(),
        )

    async def live(self) -> AsyncIterator[PowerNow]:
        """Every domain's latest power, five times a second, until `close`.

        Nothing is kept for a reader that is slow: it gets fewer.
        """
        while not self._closing.is_set():
            yield self.now()
            wait_ns = GPU_SLOT_NS - self._clock.monotonic_ns() % GPU_SLOT_NS
            try:
                await asyncio.wait_for(self._closing.wait(), wait_ns / NS_PER_SECOND)
            except TimeoutError:
                continue

    def around(self, started_at: datetime, duration_seconds: float) -> dict[str, PowerSeries]:
        """Every domain's power from one step before to one after; none where it is forgotten."""
        offset_ns = self._clock.wall_ns() - self._clock.monotonic_ns()
        start_ns = round((started_at - to_datetime(offset_ns)) / timedelta(microseconds=1)) * 1_000
        end_ns = min(start_ns + round(duration_seconds * NS_PER_SECOND), self._clock.monotonic_ns())
        found = {}
        for name, curve in self._curves.items():
            step_ns = slot_ns(curve.domain)
            slots = power_between(curve, start_ns - step_ns, end_ns + step_ns)
            if any(one.mean_watts is not None for one in slots):
                found[name] = PowerSeries(
                    step_seconds=step_ns / NS_PER_SECOND,
                    points=[
                        PowerPoint(to_datetime(one.end_ns + offset_ns), one.mean_watts)
                        for one in slots
                    ],
                )
        return found

    def close(self) -> None:
        """End every `live`."""
        self._closing.set()


def _domain_power(curve: EnergyCurve, latest: SlotPower | None) -> DomainPower:
    return DomainPower(
        mean_watts=None if latest is None else latest.mean_watts,
        over_seconds=slot_ns(curve.domain) / NS_PER_SECOND,
        joules=None if latest is None else latest.total_joules,
    )
