"""A power sensor like a GPU's: it renews its value now and then, and holds it in between."""

from collectors.base import Domain, Kind, Measure, Origin
from melodi.simulator.core import Core

DOMAIN_NAME = "gpu:SIMULATED-0"


class PowerSensor:
    """The one power domain of a simulated server."""

    def __init__(self, core: Core):
        self._core = core

    @property
    def domain(self) -> Domain:
        """What the sensor covers and how it tells it."""
        settings = self._core.settings
        return Domain(
            name=DOMAIN_NAME,
            kind=Kind.GPU,
            scope="gpu",
            source="simulated:counter",
            measure=Measure.COUNTER,
            refresh_ns=settings.refresh_ns,
            max_power_watts=settings.max_watts,
            origin=Origin.SIMULATOR,
            exclusive=True,
        )

    def read(self, at_ns: int) -> tuple[int, int]:
        """Cumulative microjoules and microwatts, as they were at the last renewal by `at_ns`."""
        settings = self._core.settings
        since_ns = (at_ns - settings.phase_ns) % settings.refresh_ns
        renewed_ns = at_ns - since_ns
        return self._core.energy_uj(renewed_ns), self._core.power_uw(renewed_ns)
