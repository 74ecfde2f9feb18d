"""Reads simulated power domains: of this process, or of a simulator behind a URL."""

import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from collectors.base import (
    Conditions,
    Domain,
    Failure,
    Kind,
    Measure,
    NowNs,
    Origin,
    Reading,
    Readings,
)
from collectors.errors import ReadFailed, Unavailable

EnergyAndPower = tuple[int | None, int | None]
"""Cumulative microjoules and present microwatts, each None where the domain does not tell it."""

ReadAt = Callable[[int], EnergyAndPower]
"""What a simulated sensor shows at a monotonic time in nanoseconds."""

_NAME = "simulated"
_PATH = "/simulator/power"
_TIMEOUT_SECONDS = 1.0
_REMEDY = "start a simulator with `melodi simulate`, or correct its URL"


class SimulatedCollector:
    """Simulated domains of this process, each beside what its sensor shows at a given time.

    Whatever the domains say, their origin is the simulator and nobody else draws from them.
    """

    def __init__(self, sensors: Sequence[tuple[Domain, ReadAt]], *, now_ns: NowNs) -> None:
        if not sensors:
            raise Unavailable("no simulated domain was given", remedy=_REMEDY)
        self._sensors = tuple((_as_simulated(domain), read_at) for domain, read_at in sensors)
        self._now_ns = now_ns

    @property
    def name(self) -> str:
        return _NAME

    @property
    def domains(self) -> tuple[Domain, ...]:
        return tuple(domain for domain, _ in self._sensors)

    def read(self) -> Readings:
        at_ns = self._now_ns()
        return Readings(
            tuple(
                Reading(domain.name, at_ns, 0, *read_at(at_ns)) for domain, read_at in self._sensors
            )
        )

    def conditions(self) -> tuple[Conditions, ...]:
        return ()

    def close(self) -> None:
        """Nothing is held open."""


class RemoteSimulatedCollector:
    """The domains of a simulator in another process, over one connection that is kept alive.

    Raises Unavailable where no simulator answers at `url`, ValueError where `url` is none.
    """

    def __init__(self, url: str, *, now_ns: NowNs) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"not a simulator's URL: {url!r}; write http://HOST:PORT")
        self._url = url
        self._path = parts.path.rstrip("/") + _PATH
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=_TIMEOUT_SECONDS
        )
        self._now_ns = now_ns
        try:
            self._domains = tuple(_domain(item) for item in self._fetch())
        except (ReadFailed, KeyError, ValueError) as error:
            self.close()
            raise Unavailable(f"no simulator at {url}: {error}", remedy=_REMEDY) from error

    @property
    def name(self) -> str:
        return _NAME

    @property
    def domains(self) -> tuple[Domain, ...]:
        return self._domains

    def read(self) -> Readings:
        before_ns = self._now_ns()
        items = {item.get("name"): item for item in self._fetch()}
        half_width_ns = (self._now_ns() - before_ns) // 2
        values, failures = [], []
        for domain in self._domains:
            item = items.get(domain.name)
            if item is None:
                error = ReadFailed(f"the simulator at {self._url} no longer has {domain.name}")
                failures.append(Failure(domain.name, error))
                continue
            energy_uj, power_uw = item.get("energy_uj"), item.get("power_uw")
            at_ns = before_ns + half_width_ns
            values.append(Reading(domain.name, at_ns, half_width_ns, energy_uj, power_uw))
        return Readings(tuple(values), tuple(failures))

    def conditions(self) -> tuple[Conditions, ...]:
        return ()

    def close(self) -> None:
        self._connection.close()

    def _fetch(self) -> list[Mapping[str, Any]]:
        try:
            self._connection.request("GET", self._path)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ReadFailed(f"no answer: {error!r}", remedy=_REMEDY) from error
        try:
            return list(json.loads(body)["domains"])
        except (ValueError, KeyError, TypeError) as error:
            reason = f"HTTP {response.status} without a simulator's power in it"
            raise ReadFailed(reason, remedy=_REMEDY) from error


def _as_simulated(domain: Domain) -> Domain:
    return replace(domain, origin=Origin.SIMULATOR, exclusive=True)


def _domain(item: Mapping[str, Any]) -> Domain:
    counts = item.get("energy_uj") is not None
    return _as_simulated(
        Domain(
            name=item["name"],
            kind=Kind(item["kind"]),
            scope=item["scope"],
            source=item["source"],
            measure=Measure.COUNTER if counts else Measure.GAUGE,
            refresh_ns=item.get("refresh_ns"),
            max_power_watts=item.get("max_power_watts"),
        )
    )
