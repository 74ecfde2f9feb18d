"""Opens the meters that the settings ask for."""

from collectors.registry import Probe, probe
from melodi.clock import Clock
from melodi.config import Settings
from melodi.errors import ConfigError


def probe_meters(settings: Settings, clock: Clock) -> list[Probe]:
    """Try the meters that the settings ask for; ConfigError for one that does not exist."""
    try:
        return probe(
            settings.collectors.use,
            now_ns=clock.monotonic_ns,
            sysfs_root=settings.collectors.sysfs_root,
            simulated_url=settings.collectors.simulated,
        )
    except ValueError as error:
        raise ConfigError(f"collectors.use: {error}") from None


def period_ns(settings: Settings, collector: str) -> int:
    """How often a collector is read."""
    fast = collector in ("nvml", "simulated")
    return settings.sampling.nvml_period if fast else settings.sampling.rapl_period
