"""Opens the meters that the settings ask for."""

from collectors.registry import Probe
from melodi.clock import Clock
from melodi.config import Settings
from melodi.errors import ConfigError
from melodi.sampling.plan import Plan


def plan_of(settings: Settings) -> Plan:
    """Which meters the settings ask for, and how often each is to be read."""
    use = settings.collectors.use
    return Plan(
        use=use if isinstance(use, str) else tuple(use),
        sysfs_root=settings.collectors.sysfs_root,
        simulated_url=settings.collectors.simulated,
        gpu_period_ns=settings.sampling.nvml_period,
        other_period_ns=settings.sampling.rapl_period,
    )


def probe_meters(settings: Settings, clock: Clock) -> list[Probe]:
    """Try the meters that the settings ask for; ConfigError for one that does not exist."""
    try:
        return plan_of(settings).probe(clock.monotonic_ns)
    except ValueError as error:
        raise ConfigError(f"collectors.use: {error}") from None
