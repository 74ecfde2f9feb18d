"""Divides the dynamic energy of a bin among backends, and among the models of a backend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melodi.energy.roster import Group


@dataclass(frozen=True, slots=True)
class Party:
    """One model of one backend with somebody in service, or a load, in a bin."""

    group: Group
    union: float
    """How long anybody was in service or the model was loading."""
    predicted_joules: float | None
    """What its requests cost by fitted costs; None where these are not known."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Where the dynamic energy of a bin goes; the parts add up to it."""

    joules: tuple[float, ...]
    """Of each party, in order."""
    foreign: float
    unattributed: float
    unwatched: bool
    """Whether some of it went to a backend whose usage was not watched."""


def claim(
    dynamic: float, parties: Sequence[Party], shares: Mapping[str, float] | None, *, exclusive: bool
) -> Claims:
    """Divide `dynamic` joules; `shares` are the backends' parts of them, None: not known.

    A backend takes its share; with nobody in service that is unattributed. What is left is that
    of the backends in service that were not watched, or else foreign. Among the models of a
    backend, and among all where no shares are known, what their requests should have cost
    decides, or else how long each had anybody in service: an engine draws about the same with
    few requests as with many. An `exclusive` domain works for nobody else.
    """
    watched = {} if shares is None else dict(shares)
    ours = sum(watched.values())
    if ours > 1.0 or (exclusive and ours > 0):
        watched = {name: share / ours for name, share in watched.items()}
    joules = [0.0] * len(parties)
    rest, unattributed = dynamic, 0.0
    for backend, share in watched.items():
        rest -= dynamic * share
        mine = [k for k, one in enumerate(parties) if one.group.backend == backend]
        unattributed += _divide(dynamic * share, mine, parties, joules)
    others = [k for k, one in enumerate(parties) if one.group.backend not in watched]
    rest = _divide(rest, others, parties, joules)
    foreign = rest if shares is not None and not exclusive else 0.0
    return Claims(tuple(joules), foreign, unattributed + rest - foreign, unwatched=bool(others))


def _divide(
    part: float, chosen: Sequence[int], parties: Sequence[Party], joules: list[float]
) -> float:
    """Divide `part` among those chosen; gives what is left: all of it where there is nobody."""
    if not chosen:
        return part
    predicted = [parties[k].predicted_joules for k in chosen]
    known = [one for one in predicted if one is not None]
    weights = known if len(known) == len(chosen) else [parties[k].union for k in chosen]
    total = sum(weights)
    if total == 0:
        return part
    for k, weight in zip(chosen, weights, strict=True):
        joules[k] += part * weight / total
    return 0.0
