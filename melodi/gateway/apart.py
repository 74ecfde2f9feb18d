"""What a process that passes traffic on and the daemon that started it say to each other."""

from dataclasses import dataclass

from melodi.energy.record import EnergyRecord
from melodi.inference.request import Backend
from melodi.inference.timeline import RequestTimeline


@dataclass(frozen=True, slots=True)
class Task:
    """The daemon's first word: which backends to stand in front of."""

    gateways: tuple[tuple[Backend, int], ...]
    """Each with the descriptor of its listening socket."""
    patience_seconds: float
    """How long the daemon may take to say what a request cost."""


@dataclass(frozen=True, slots=True)
class Ready:
    """All gateways answer."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a process has used and lost since it began."""

    cpu_seconds: float = 0.0
    log_lines_lost: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(
            self.cpu_seconds + other.cpu_seconds, self.log_lines_lost + other.log_lines_lost
        )


@dataclass(frozen=True, slots=True)
class Passed:
    """The requests that began and ended since it last said so, in order."""

    seen: list[tuple[bool, RequestTimeline]]
    """Whether it ended; the timeline as it is now."""
    used: Used


@dataclass(frozen=True, slots=True)
class Asked:
    """A client wants to know what its request cost."""

    number: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Told:
    """The daemon's answer to what was asked under this number."""

    number: int
    record: EnergyRecord | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Take no new work, and end."""
