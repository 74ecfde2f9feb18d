"""Opens the meters that the settings ask for."""

import structlog

from collectors.registry import Probe
from melodi.clock import Clock
from melodi.config import Settings
from melodi.errors import ConfigError
from melodi.sampling.plan import Plan
from melodi.sampling.process import START_SECONDS, MeterProcess, Refused, Told

log = structlog.get_logger(__name__)


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


def open_apart(settings: Settings) -> tuple[MeterProcess, list[Probe]]:
    """The process that reads the meters, and what it has found; ConfigError as `probe_meters`.

    One that does not answer in time has found nothing yet.
    """
    try:
        process = MeterProcess(plan_of(settings))
    except OSError as error:
        raise ConfigError(
            f"sampling.process: no process can be started ({error}); make room, or leave it out"
        ) from None
    try:
        message = process.receive(START_SECONDS)
    except EOFError:
        message = None
    if isinstance(message, Refused):
        process.close()
        process.let_go()
        raise ConfigError(f"collectors.use: {message.reason}")
    if not isinstance(message, Told):
        log.warning("meters_do_not_answer", waited_seconds=START_SECONDS)
        return process, []
    return process, list(message.probes)
