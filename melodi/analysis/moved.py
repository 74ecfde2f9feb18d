"""How far joules moved when records were divided anew."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from melodi.analysis.rebooking import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The revised records of one model, before and after."""

    model: str | None
    count: int
    before_joules: float | None
    after_joules: float | None
    """Sums over those that are known; None: none is."""
    newly_known: int
    """Records of unknown energy before, and known after."""
    median_moved_ratio: float | None
    most_moved_ratio: float | None
    """By how much a record's joules changed, up or down, as a part of those before."""


def moved_by_model(revisions: Iterable[Revision]) -> list[Moved]:
    """One for each model, by name."""
    groups: dict[str, list[Revision]] = defaultdict(list)
    for one in revisions:
        groups[one.after.model or ""].append(one)
    return [_moved(name or None, groups[name]) for name in sorted(groups)]


def _moved(model: str | None, revisions: list[Revision]) -> Moved:
    pairs = [(one.before.energy_joules, one.after.energy_joules) for one in revisions]
    before = [old for old, _ in pairs if old is not None]
    after = [new for _, new in pairs if new is not None]
    ratios = [abs(new - old) / old for old, new in pairs if old and new is not None]
    return Moved(
        model=model,
        count=len(revisions),
        before_joules=sum(before) if before else None,
        after_joules=sum(after) if after else None,
        newly_known=sum(old is None and new is not None for old, new in pairs),
        median_moved_ratio=median(ratios) if ratios else None,
        most_moved_ratio=max(ratios, default=None),
    )
