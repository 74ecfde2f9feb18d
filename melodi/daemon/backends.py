"""The configured backends: what they are, where they run, and what they last said of themselves."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from collectors.base import Domain, Kind
from melodi.config import BackendSettings
from melodi.energy.window import summable
from melodi.errors import BackendError, ConfigError
from melodi.inference.describe import BackendView, describe
from melodi.inference.discovery import Presence
from melodi.inference.loaded import LoadedModel
from melodi.inference.placement import Placement, Watched
from melodi.inference.request import Backend, BackendKind
from melodi.inference.timeline import RequestTimeline
from melodi.inference.tls import trust

DEVICES_ASSUMED = "devices_assumed"


@dataclass(frozen=True, slots=True)
class Charge:
    """The power domains that a request is charged to, and how they are known."""

    domains: tuple[str, ...]
    how: str
    """`settings`; `processes` (they were seen there); `model` (it is in no GPU's memory);
    `assumed` (all, for want of knowing); `all` (no GPU is measured, so there is no choice)."""


class Backends:
    """All backends of this host by name, with the power domains that each runs on."""

    def __init__(self, settings: Sequence[BackendSettings], domains: Sequence[Domain]) -> None:
        self._backends = {one.name: _backend(one) for one in settings}
        self._settings = {one.name: one for one in settings}
        self._named: dict[str, tuple[str, ...] | None] = {}
        self._usable: list[Domain] = []
        self._gpus: set[str] = set()
        self._off_gpu: set[tuple[str, str]] = set()
        self._placements: Mapping[str, Placement] = {}
        self._charges: dict[str, Charge] = {}
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
        self._named = {
            name: None if one.devices == "auto" else _named_domains(one, domains)
            for name, one in self._settings.items()
        }
        added = summable(domains)
        self._usable = [domain for domain in domains if domain.name in added]
        self._gpus = {
            one.name for one in self._usable if one.kind is Kind.GPU and not one.exclusive
        }
        self._charges = {name: self._charge(name) for name in self._backends}

    def domains_of(self, name: str) -> tuple[str, ...]:
        """The power domains that the backend's requests are charged to."""
        return self.charge(name).domains

    def charge(self, name: str, model: str | None = None) -> Charge:
        """The power domains that a request of this backend is charged to, if it begins now.

        Until its processes have been seen on a GPU it may be on any. A model that is known to be
        in no GPU's memory is charged to none.
        """
        charge = self._charges.get(name, Charge((), "settings"))
        if charge.how == "settings" or (name, model) not in self._off_gpu:
            return charge
        gpus = self._gpus
        return Charge(tuple(one for one in charge.domains if one not in gpus), "model")

    def doubts(self, name: str, model: str | None, began: Charge) -> tuple[str, ...]:
        """Why the charge of a request that has just ended may be wrong."""
        now = self.charge(name, model)
        moved = now.how in ("processes", "model") and now.domains != began.domains
        unknown = began.how == now.how == "assumed"
        return (DEVICES_ASSUMED,) if moved or unknown else ()

    def hold(self, models: Mapping[str, Sequence[LoadedModel]]) -> None:
        """Which models each backend holds now."""
        self._off_gpu = {
            (name, one.name) for name, held in models.items() for one in held if one.vram_bytes == 0
        }

    def watched(self) -> list[Watched]:
        """The backends whose processes are to be followed: those that may run on this host."""
        return [
            Watched(name=one.name, url=one.url, process=self._settings[one.name].process)
            for one in self
            if self._settings[one.name].devices != []
        ]

    def place(self, placements: Mapping[str, Placement]) -> None:
        """Where the backends have just been seen."""
        self._placements = placements
        self._charges = {name: self._charge(name) for name in self._backends}

    def _charge(self, name: str) -> Charge:
        named = self._named[name]
        if named is not None:
            return Charge(named, "settings")
        placement = self._placements.get(name)
        on = placement.gpus if placement is not None else None
        left_out = self._gpus - on if on else set()
        charged = tuple(one.name for one in self._usable if one.name not in left_out)
        if not self._gpus:
            return Charge(charged, "all")
        return Charge(charged, "processes" if on else "assumed")

    def identify(self, timeline: RequestTimeline) -> None:
        """Add the backend's version and the model's digest, as the backend last told them."""
        view = self._views.get(timeline.backend)
        if view is None:
            return
        timeline.backend_version = timeline.backend_version or view.version
        if timeline.model_digest is None:
            found = (model.digest for model in view.models if model.name == timeline.model)
            timeline.model_digest = next(found, None)

    async def look(self) -> list[BackendView]:
        """Ask every backend who it is."""
        views = await asyncio.gather(*(describe(one) for one in self._backends.values()))
        self._views = {view.name: view for view in views}
        return list(views)

    async def listing(self) -> list[dict[str, Any]]:
        """What `/v1/backends` shows."""
        return [
            asdict(view)
            | {"listen": self._settings[view.name].listen}
            | _charge_shown(self.charge(view.name))
            | _placement_shown(self._placements.get(view.name))
            for view in await self.look()
        ]


def _charge_shown(charge: Charge) -> dict[str, Any]:
    return {"domains": list(charge.domains), "domains_from": charge.how}


def _placement_shown(placement: Placement | None) -> dict[str, Any]:
    """Whose processes were found, and where; or why not and what to do."""
    if placement is None:
        return {"process": None}
    found, root = placement.found, placement.root
    return {
        "process": {
            "presence": found.presence.value,
            "found_by": found.how,
            "pid": None if root is None else root.pid,
            "name": None if root is None else root.name,
            "cgroup": found.cgroup,
            "count": len(placement.pids) if found.presence is Presence.FOUND else None,
            "gpus": None if placement.gpus is None else sorted(placement.gpus),
            "cpu_time_from": placement.cpu_time_from,
            "reason": found.reason or placement.gpu_reason,
            "remedy": found.remedy,
        }
    }


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


def _named_domains(settings: BackendSettings, domains: Sequence[Domain]) -> tuple[str, ...]:
    """The domains that were named; raises ConfigError for one that is not here."""
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
