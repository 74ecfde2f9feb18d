"""The configured backends: what they are, where they run, and what they last said of themselves."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from collectors.base import Domain
from melodi.config import BackendSettings
from melodi.energy.window import summable
from melodi.errors import BackendError, ConfigError
from melodi.inference.describe import BackendView, describe
from melodi.inference.request import Backend, BackendKind
from melodi.inference.timeline import RequestTimeline
from melodi.inference.tls import trust


class Backends:
    """All backends of this host by name, with the power domains that each runs on."""

    def __init__(self, settings: Sequence[BackendSettings], domains: Sequence[Domain]) -> None:
        self._backends = {one.name: _backend(one) for one in settings}
        self._listens = {one.name: one.listen for one in settings}
        self._settings = settings
        self._domains: dict[str, tuple[str, ...]] = {}
        self.measured(domains)
        self._views: dict[str, BackendView] = {}

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends.values())

    def get(self, name: str) -> Backend:
        """The backend of this name; BackendError with the known names where there is none."""
        if name not in self._backends:
            known = ", ".join(sorted(self._backends)) or "none is configured"
            raise BackendError(
                f"no backend is called {name!r} (known: {known}); "
                "name a known one, or add a [[backends]] table to melodi.toml"
            )
        return self._backends[name]

    def measured(self, domains: Sequence[Domain]) -> None:
        """Tell what is measured from now on; ConfigError where a device that is named is not."""
        self._domains = {one.name: _domains_for(one, domains) for one in self._settings}

    def domains_of(self, name: str) -> tuple[str, ...]:
        """The power domains that the backend's requests are charged to."""
        return self._domains.get(name, ())

    def identify(self, timeline: RequestTimeline) -> None:
        """Add the backend's version and the model's digest, as the backend last told them."""
        view = self._views.get(timeline.backend)
        if view is None:
            return
        timeline.backend_version = timeline.backend_version or view.version
        digests = {model.name: model.digest for model in view.models}
        if timeline.model_digest is None and timeline.model is not None:
            timeline.model_digest = digests.get(timeline.model)

    async def look(self) -> list[BackendView]:
        """Ask every backend who it is."""
        views = await asyncio.gather(*(describe(one) for one in self._backends.values()))
        self._views = {view.name: view for view in views}
        return list(views)

    async def listing(self) -> list[dict[str, Any]]:
        """What `/v1/backends` shows."""
        return [
            asdict(view)
            | {"listen": self._listens[view.name], "domains": list(self.domains_of(view.name))}
            for view in await self.look()
        ]


def _backend(settings: BackendSettings) -> Backend:
    devices = None if settings.devices == "auto" else tuple(settings.devices)
    backend = Backend(
        name=settings.name,
        kind=BackendKind(settings.kind),
        url=settings.url,
        devices=devices,
        api_key=settings.api_key,
        asks_usage=settings.usage == "ask",
        ca=settings.ca,
    )
    if backend.ca is not None:
        # So that a file that cannot be used is said at the start.
        trust(backend)
    return backend


def _domains_for(settings: BackendSettings, domains: Sequence[Domain]) -> tuple[str, ...]:
    """The domains that were named, or all that may be added up.

    Raises ConfigError for a domain that is not here.
    """
    if settings.devices == "auto":
        usable = summable(domains)
        return tuple(domain.name for domain in domains if domain.name in usable)
    known = {domain.name: domain for domain in domains}
    for name in settings.devices:
        if name not in known:
            here = ", ".join(known) or "none"
            raise ConfigError(
                f"backend {settings.name!r} names the device {name!r}, which is not measured here "
                f"(measured: {here}); mend its devices, or see: melodi doctor"
            )
        if not known[name].summable:
            raise ConfigError(
                f"backend {settings.name!r} names the device {name!r}, which contains others "
                "and cannot be added to them; leave it out"
            )
    if len({known[name].origin for name in settings.devices}) > 1:
        raise ConfigError(
            f"backend {settings.name!r} mixes simulated and sensed devices; name one sort"
        )
    return tuple(settings.devices)
