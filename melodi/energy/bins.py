"""Bins of measured energy, and the stretches of time that requests spent in service."""

from dataclasses import dataclass

from collectors.values import value
from melodi.energy.work import Work

UJ_PER_JOULE = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of monotonic time, in ns."""

    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        return self.end_ns - self.start_ns

    def overlap_ns(self, start_ns: int, end_ns: int) -> int:
        """How long this and the other stretch have in common."""
        return max(0, min(self.end_ns, end_ns) - max(self.start_ns, start_ns))

    def widened(self, by_ns: int) -> "Interval":
        """The stretch with both ends moved out (in, where negative; never past each other)."""
        start_ns, end_ns = self.start_ns - by_ns, self.end_ns + by_ns
        return Interval(start_ns, max(start_ns, end_ns))


@dataclass(frozen=True, slots=True)
class Booked:
    """How a bin was booked once, so that it can be booked so again."""

    minute: int
    """Minutes since 1970 in UTC."""
    idle_watts: float | None
    """The idle power by which it was split; None: unknown then."""


@value()
class Bin:
    """The energy of one domain between two consecutive edges of its curve."""

    domain: str
    start_ns: int
    end_ns: int
    energy_uj: int | None
    """What the counter gained; None where nobody measured (a reset, a dead sensor)."""
    total_uj: int
    """The curve's cumulative energy at the end of the bin."""
    half_width_ns: int = 0
    """How far an edge may truly lie from where it is placed."""
    reason: str | None = None
    """`stall` where the sampler paused, or why the energy is unknown."""
    booked: Booked | None = None
    """How it was booked before; None: it never was."""

    @property
    def length_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def joules(self) -> float | None:
        return None if self.energy_uj is None else self.energy_uj / UJ_PER_JOULE


@dataclass(frozen=True, slots=True)
class Span:
    """One request's service: what it can be charged for."""

    request: str
    service: Interval
    first_token_ns: int | None = None
    load: Interval | None = None
    """The model load that it waited for."""
    work: Work | None = None
    """Its tokens; None where they are not known."""
    backend: str = ""
    model: str = ""
    """Requests of one model on one backend share its steps, and wait for one load."""
    late_ns: int = 0
    """How far its service, as long as it was told to be, may lie from where it was placed."""

    @property
    def parts(self) -> tuple[Interval, ...]:
        return (self.service,) if self.load is None else (self.service, self.load)
