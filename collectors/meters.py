"""Domains that are read one by one: opens each, and makes one pass over all."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from collectors.base import Domain, Failure, Reading, Readings
from collectors.errors import CollectorError, ReadFailed

Told = TypeVar("Told")


class Meter(Protocol[Told]):
    """One domain of a collector that can be read by itself, in two steps.

    `ask` asks the device and raises nothing: what it gives may be a fault, and it is `reading`
    that raises ReadFailed for it.
    """

    @property
    def domain(self) -> Domain: ...

    def ask(self) -> Told: ...

    def reading(self, told: Told) -> Reading: ...


Source = TypeVar("Source")
Opened = TypeVar("Opened")


def open_each(
    open_one: Callable[[Source], Opened], sources: Iterable[Source]
) -> tuple[list[Opened], tuple[CollectorError, ...]]:
    """What could be opened, and why the rest could not; raises the first where nothing could."""
    opened: list[Opened] = []
    errors: list[CollectorError] = []
    for source in sources:
        try:
            opened.append(open_one(source))
        except CollectorError as error:
            errors.append(error)
    if not opened:
        raise errors[0]
    return opened, tuple(errors)


def read_each(meters: Sequence[Meter[Told]]) -> Readings:
    """One pass over `meters`; raises ReadFailed where not one of them could be read.

    All are asked before any answer is looked at: they are read within a shorter time, and the
    interpreter's lock, which each question lets go of, changes hands less often.
    """
    values: list[Reading] = []
    failures: list[Failure] = []
    for meter, told in [(meter, meter.ask()) for meter in meters]:
        try:
            values.append(meter.reading(told))
        except ReadFailed as error:
            failures.append(Failure(meter.domain.name, error))
    if not values:
        raise failures[0].error
    return Readings(tuple(values), tuple(failures))
