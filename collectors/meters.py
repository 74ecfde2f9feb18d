"""Domains that are read one by one: opens each, and makes one pass over all."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar, overload

from collectors.base import Domain, Failure, Reading, Readings
from collectors.errors import CollectorError, ReadFailed

Told = tuple[int, int, int]
"""The device's number, with the times in ns before and after it was asked."""


class Meter(Protocol):
    """One domain of a collector that can be read by itself, in two steps.

    `ask` asks the device, and gives why it could not be read instead of raising it. `reading`
    says what it told; any thread may ask for that, later too.
    """

    @property
    def domain(self) -> Domain: ...

    def ask(self) -> Told | ReadFailed: ...

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


def read_each(meters: Sequence[Meter]) -> Readings:
    """One pass over `meters`; raises ReadFailed where not one of them could be read.

    Readings are made of the answers when somebody asks for them: who reads has little time, and
    many passes are looked at together.
    """
    answers = [meter.ask() for meter in meters]
    told: list[tuple[Meter, Told]] = []
    failures: list[Failure] = []
    for meter, answer in zip(meters, answers, strict=True):
        if isinstance(answer, ReadFailed):
            failures.append(Failure(meter.domain.name, answer))
        else:
            told.append((meter, answer))
    if not told:
        raise failures[0].error
    return Readings(_Made(told), tuple(failures))


class _Made(Sequence[Reading]):
    """Readings that are made when they are asked for, and anew each time."""

    __slots__ = ("_told",)

    def __init__(self, told: Sequence[tuple[Meter, Told]]) -> None:
        self._told = told

    def __len__(self) -> int:
        return len(self._told)

    def __iter__(self) -> Iterator[Reading]:
        return (meter.reading(told) for meter, told in self._told)

    @overload
    def __getitem__(self, place: int) -> Reading: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Reading, ...]: ...

    def __getitem__(self, place: int | slice) -> Reading | tuple[Reading, ...]:
        return tuple(self)[place]

    def __reduce__(self) -> tuple[type[tuple[Reading, ...]], tuple[tuple[Reading, ...]]]:
        """In another process there are no meters to make them."""
        return tuple, (tuple(self),)
