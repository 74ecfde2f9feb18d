"""What one bin, or several of different domains, had for those in service, and where it went."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from melodi.clock import NS_PER_SECOND
from melodi.energy.attendance import Attendance
from melodi.energy.bins import Bin
from melodi.energy.claims import Party
from melodi.energy.columns import Vector
from melodi.energy.engine import EngineBin
from melodi.energy.policies import Policy
from melodi.energy.roster import Group
from melodi.energy.work import Prices

ACTIVE, IDLE_SHARE, LOAD, PREFILL, LOW, HIGH, DOUBT, EXCLUSIVE_LOW, EXCLUSIVE_HIGH = range(9)
"""What a request receives from a bin, in joules. PREFILL is a part of ACTIVE; the bounds are
LOW and HIGH where one policy divides, else what every policy gives, with a DOUBT of its own."""
PARTS = 9
COVERED, LOST, LOAD_COVERED, COMPANY, ALONE_SLACK, UNDIVIDED, IDLE_WATTS = range(PARTS, PARTS + 7)
"""Times in ns behind its parts, and the slack in joules of a run of bins in which it was alone.
COMPANY is the time in service of all, weighed by its own part of the bin; of IDLE_WATTS only the
last is kept, everything else adds up."""
POLICIES = PARTS + 7
"""Behind these, a row for each policy: what it would give, beside the bounds; 0 where those do
alone. Then a row for each: the active joules that it divided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known about a domain when one of its bins closes."""

    idle_watts: float | None
    """Power of the warm, idle domain; None: not learned yet."""
    max_watts: float | None
    shares: Mapping[str, float] | None = None
    """Each backend's part of the dynamic energy, 0..1; None: unknown."""
    exclusive: bool = False
    """Nobody else works on the domain."""
    engines: Mapping[str, EngineBin] = field(default_factory=dict)
    """What the engine of each backend tells of the bin, if it does."""

    @property
    def least_watts(self) -> float:
        """What the domain never falls below: its idle power, or nothing where that is unknown."""
        return 0.0 if self.idle_watts is None else self.idle_watts

    @property
    def all_ours(self) -> bool:
        """Whether nothing of the dynamic energy is known to be of others."""
        return self.exclusive or self.shares is None or sum(self.shares.values()) >= 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """A measured bin that is to be divided."""

    bin: Bin
    setting: Setting
    policies: Callable[[Group], Sequence[Policy]]
    """Of the domain: they learn from its bins."""
    reasons: Set[str] = frozenset()
    """What makes the division less sure."""

    def split(self) -> tuple[float, float]:
        """Idle floor and dynamic joules (I, D); ValueError for a bin without energy."""
        joules = self.bin.joules
        if joules is None:
            raise ValueError("an unmeasured bin has no joules to divide; count its seconds instead")
        idle = min(joules, self.setting.least_watts * self.bin.length_ns / NS_PER_SECOND)
        return idle, joules - idle

    def doubts(self, *, unwatched: bool) -> Set[str]:
        """The reasons to give those in the bin; `unwatched`: an unwatched backend had a part."""
        found = set(self.reasons)
        if self.bin.reason is not None:
            found.add(self.bin.reason)
        if self.setting.idle_watts is None:
            found.add("idle_unknown")
        if unwatched and not self.setting.exclusive and self.setting.shares is not None:
            found.add("foreign_unknown")
        return found


@dataclass(frozen=True, slots=True)
class Division:
    """How one policy weighs what the members of a table did."""

    policy: int
    prices: Prices
    total: float
    """The weight of all, and of a load if there is one."""
    in_joules: bool


@dataclass(slots=True)
class Table:
    """Those of one model in a bin: what their policies say, and what they get together."""

    bin: int
    part: slice
    """Where they are among all guests."""
    group: Group
    attendance: Attendance
    policies: Sequence[Policy]
    divisions: list[Division] = field(default_factory=list)
    """By every policy that knows enough, the preferred one first."""
    joules: float = 0.0
    idle_per_ns: float = 0.0
    seats: int = 0
    """Of the bin: how many may have taken part, with each load as one more."""
    alone: bool = False
    """The only guest of the bin is all there was to work for."""

    @property
    def several(self) -> bool:
        """Whether policies bound each other."""
        return len(self.divisions) > 1 and not self.alone

    @property
    def best(self) -> Division | None:
        return self.divisions[0] if self.divisions else None

    def by(self, policy: int) -> Division | None:
        """A policy's division, or the best where it has none."""
        return next((one for one in self.divisions if one.policy == policy), self.best)

    @property
    def party(self) -> Party:
        best = self.best
        joules = best.total if best is not None and best.in_joules else None
        return Party(self.group, self.attendance.union, joules)


@dataclass(slots=True)
class Posting:
    """Where all joules of one bin went: these accounts add up to its energy."""

    active: float = 0.0
    idle_share: float = 0.0
    load: float = 0.0
    idle: float = 0.0
    foreign: float = 0.0
    unattributed: float = 0.0
    unwatched: bool = False
    """Some went to a backend whose usage was not watched."""
    dynamic: float = 0.0
    """The joules above the idle floor."""


@dataclass(slots=True)
class Settlement:
    """What the guests of some bins received."""

    postings: list[Posting]
    """Of each bin."""
    sums: Vector
    """A row for each of ACTIVE ... IDLE_WATTS and of the policies, a column for each guest."""
    alone: list[int] = field(default_factory=list)
    """The guests beside whom nobody can have been in service: all active energy is their own."""

    @property
    def kinds(self) -> int:
        """How many policies there are."""
        return (len(self.sums) - POLICIES) // 2

    @property
    def by_policy(self) -> Vector:
        return self.sums[POLICIES : POLICIES + self.kinds]

    @property
    def divided(self) -> Vector:
        return self.sums[POLICIES + self.kinds :]
