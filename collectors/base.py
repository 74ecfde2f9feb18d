"""The role of a collector, and the values it deals in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from collectors.errors import ReadFailed
from collectors.values import value

NowNs = Callable[[], int]
"""Gives nanoseconds on the monotonic clock."""


class Kind(StrEnum):
    """What a power domain feeds."""

    GPU = "gpu"
    CPU = "cpu"
    DRAM = "dram"
    PLATFORM = "platform"


class Measure(StrEnum):
    """How a domain tells its energy: as a cumulative counter, or as power to be integrated."""

    COUNTER = "counter"
    GAUGE = "gauge"


class Origin(StrEnum):
    """Where joules came from; numbers of different origin are never mixed."""

    SENSOR = "sensor"
    SIMULATOR = "simulator"
    IMPORT = "import"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One power domain of this host, as its collector describes it."""

    name: str
    """`gpu:<uuid>`, `package:0`, `dram:0`, `psys:0`; unique on the host."""
    kind: Kind
    scope: str
    """What the sensor covers: `gpu`, `module`, `package`, `dram`, ..."""
    source: str
    """Which sensor answered: `nvml:total_energy`, `rapl:powercap`, ..."""
    measure: Measure
    range_uj: int | None = None
    """A counter wraps after this many microjoules; None: it never wraps, so a fall is a reset."""
    refresh_ns: int | None = None
    """How often the hardware tells something new; None: unknown."""
    lag_ns: int = 0
    """A gauge's value is of so long before it was read, give or take as much.

    Half of how long a value is shown, and half of what it is a mean over.
    """
    max_power_watts: float | None = None
    """No true power exceeds this; None: unknown."""
    origin: Origin = Origin.SENSOR
    estimated: bool = False
    """True where a model stands in for a sensor."""
    exclusive: bool = False
    """True where nothing but the known backends can draw from it (a simulated device)."""
    summable: bool = True
    """False where another domain already contains it, or where it may contain others (psys)."""
    part_of: str | None = None
    """The domain of the same meter that contains this one."""
    description: str = ""


@value()
class Reading:
    """One device read: when, how sharply in time, and what it gave."""

    domain: str
    at_ns: int
    """Middle of the read on the monotonic clock."""
    half_width_ns: int
    """Half the time the read took."""
    energy_uj: int | None = None
    """Raw counter value in microjoules; None where the domain has no counter."""
    power_uw: int | None = None
    """Power in microwatts; None where it was not read."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One domain that could not be read this time."""

    domain: str
    error: ReadFailed


@value()
class Readings:
    """What one pass over a collector's domains gave."""

    values: Sequence[Reading]
    failures: tuple[Failure, ...] = ()


@value(kw_only=True)
class Conditions:
    """The state of one device that explains its joules; read about once a second."""

    domain: str
    at_ns: int
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_watts: float | None = None
    temperature_celsius: int | None = None
    utilisation_ratio: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    """Empty: it says that nothing throttles it."""


class Collector(Protocol):
    """A meter that is open: constructing one proves it by a successful read.

    A constructor raises Unavailable or NotPermitted. `read` raises ReadFailed when nothing at
    all could be read; one domain that fails is a Failure among the others' readings.
    """

    @property
    def name(self) -> str: ...

    @property
    def domains(self) -> tuple[Domain, ...]: ...

    def read(self) -> Readings: ...

    def conditions(self) -> tuple[Conditions, ...]: ...

    def close(self) -> None: ...
