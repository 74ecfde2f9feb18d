"""What the minutes of the ledger gain when their bins are divided anew."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from melodi.analysis.replay import DomainMinute, Stay
from melodi.energy.accounts import AMOUNTS, MinuteAccounts
from melodi.energy.record import DomainEnergy, EnergyRecord

SAME_JOULES = 1e-6
"""The same readings, added in another order, agree to so little."""

Accounts = Mapping[DomainMinute, MinuteAccounts]


@dataclass(frozen=True, slots=True)
class Revision:
    """A record before and after."""

    before: EnergyRecord
    after: EnergyRecord


def whole_minutes(booked: Accounts, anew: Accounts, *, first: int, last: int) -> set[int]:
    """Those of the minutes from `first` to `last` of which every booked bin is kept."""
    torn = {
        key[1]
        for key in booked.keys() | anew.keys()
        if abs(_measured(booked, key) - _measured(anew, key)) > SAME_JOULES
    }
    return set(range(first, last + 1)) - torn


def widened(
    first: int, last: int, stays: Iterable[Stay], whole: set[int], *, most: int
) -> tuple[int, int]:
    """The minutes from `first` to `last`, and up to `most` more on each side to where nobody ran.

    Where somebody always ran, or what was booked is not kept, a side stays where it is.
    """
    crossed = {minute for one in stays for minute in range(one.first + 1, one.last + 1)}

    def quiet(edge: int, *, step: int, after: int) -> int:
        """The nearest minute from `edge` on whose border nobody crosses."""
        for minute in range(edge, edge + step * (most + 1), step):
            if minute not in whole:
                break
            if minute + after not in crossed:
                return minute
        return edge

    return quiet(first, step=-1, after=0), quiet(last, step=1, after=1)


def followed(minutes: set[int], stays: Iterable[Stay], whole: set[int], *, most: int) -> set[int]:
    """The minutes in which those ran to their end who began in `minutes`, as far as all is kept."""
    found: set[int] = set()
    for one in stays:
        if one.whole and one.first in minutes and one.last - one.first <= most:
            found.update(range(one.first, one.last + 1))
    return found & whole


def changes(
    booked: Accounts, anew: Accounts, minutes: set[int]
) -> dict[DomainMinute, MinuteAccounts]:
    """What is to be added to each of the minutes so that it becomes what `anew` says."""
    found = {}
    for key in booked.keys() | anew.keys():
        if key[1] in minutes:
            zero = MinuteAccounts(domain=key[0], minute=key[1])
            old, new = booked.get(key, zero), anew.get(key, zero)
            amounts = {name: getattr(new, name) - getattr(old, name) for name in AMOUNTS}
            found[key] = MinuteAccounts(domain=key[0], minute=key[1], **amounts)
    return found


def leave_to_others(
    changed: Mapping[DomainMinute, MinuteAccounts],
    booked: Accounts,
    anew: Accounts,
    revisions: Sequence[Revision],
) -> None:
    """Let those whose records stay as they are keep their joules in the `changed` minutes.

    What they hold there is what the books held and the revised records did not. By how much
    the new policy would have given them more or less is taken from, or given to, unattributed,
    over the minutes as these served requests: so records and accounts still agree.
    """
    for domain in {key[0] for key in changed}:
        keys = [key for key in changed if key[0] == domain]
        served = sum(_served(anew, key) for key in keys)
        before = [one.before.domains.get(domain) for one in revisions]
        after = [one.after.domains.get(domain) for one in revisions]
        held = sum(_served(booked, key) for key in keys) - _joules(before)
        given = served - _joules(after)
        held_load = sum(_load(booked, key) for key in keys) - _loads(before)
        given_load = sum(_load(anew, key) for key in keys) - _loads(after)
        for key in keys:
            part = _served(anew, key) / served if served else 1 / len(keys)
            change = changed[key]
            change.active_joules += part * (held - given)
            change.load_joules += part * (held_load - given_load)
            change.unattributed_joules -= part * (held - given + held_load - given_load)


def _measured(accounts: Accounts, key: DomainMinute) -> float:
    return accounts[key].measured_joules if key in accounts else 0.0


def _served(accounts: Accounts, key: DomainMinute) -> float:
    one = accounts.get(key)
    return 0.0 if one is None else one.active_joules + one.idle_share_joules


def _load(accounts: Accounts, key: DomainMinute) -> float:
    return accounts[key].load_joules if key in accounts else 0.0


def _joules(energies: Iterable[DomainEnergy | None]) -> float:
    return sum(one.joules for one in energies if one is not None and one.joules is not None)


def _loads(energies: Iterable[DomainEnergy | None]) -> float:
    return sum(
        one.load_joules for one in energies if one is not None and one.load_joules is not None
    )
