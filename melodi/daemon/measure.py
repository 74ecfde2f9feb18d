"""Runs a command between two cuts of every energy curve; needs no database."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from melodi.clock import NS_PER_SECOND, Clock
from melodi.config import Settings
from melodi.daemon.meters import plan_of, probe_meters
from melodi.energy.window import WindowEnergy, total_joules
from melodi.errors import CommandError
from melodi.sampling.meters import EnergyCurve
from melodi.sampling.sampler import Sampler
from melodi.sampling.settle import cuts_at, energies, first_edges

NOT_EXECUTABLE, NOT_FOUND, SIGNALLED = 126, 127, 128
"""Exit statuses as shells give them; SIGNALLED plus its number where a signal ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a command took; unknown is None."""

    duration_seconds: float
    joules: float | None
    """Over the domains that may be summed; None where one of them is unknown."""
    domains: Mapping[str, WindowEnergy]
    exit_code: int


async def measure(
    command: Sequence[str], settings: Settings, *, clock: Clock, output_to_stderr: bool
) -> Measured:
    """Run the command with this process's own streams, and give what it used while it ran.

    Raises CommandError where it cannot be started.
    """
    async with _metering(settings, clock) as curves:
        start_ns = clock.monotonic_ns()
        starts = asyncio.create_task(cuts_at(curves, start_ns))
        try:
            exit_code = await _run(command, output_to_stderr=output_to_stderr)
            end_ns = clock.monotonic_ns()
            ends = await cuts_at(curves, end_ns)
            domains = energies(curves, await starts, ends)
        finally:
            starts.cancel()
    return Measured(
        duration_seconds=(end_ns - start_ns) / NS_PER_SECOND,
        joules=total_joules(domains.values()),
        domains=domains,
        exit_code=exit_code,
    )


@contextlib.asynccontextmanager
async def _metering(settings: Settings, clock: Clock) -> AsyncIterator[Mapping[str, EnergyCurve]]:
    """The curves of every meter here, which has begun to move."""
    probes = await asyncio.to_thread(probe_meters, settings, clock)
    period_of = plan_of(settings).period_ns
    sampler = Sampler(probes, period_of=period_of, clock=clock, on_sample=lambda _: None)
    sampler.start()
    try:
        await first_edges(sampler.curves)
        yield sampler.curves
    finally:
        await asyncio.to_thread(sampler.stop)


async def _run(command: Sequence[str], *, output_to_stderr: bool) -> int:
    """Run it to its end; its exit status, or 128 + n where signal n ended it."""
    started: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
    with _forwarding(started):
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=sys.stderr.fileno() if output_to_stderr else None
            )
        except (FileNotFoundError, NotADirectoryError):
            raise CommandError(
                f"there is no command {command[0]!r}; check its name, or give its path",
                exit_code=NOT_FOUND,
            ) from None
        except (OSError, ValueError) as error:
            raise CommandError(
                f"cannot run {command[0]!r}: {getattr(error, 'strerror', None) or error}; "
                "name a program, or make it executable",
                exit_code=NOT_EXECUTABLE,
            ) from None
        started.set_result(process)
        status = await process.wait()
    return SIGNALLED - status if status < 0 else status


@contextlib.contextmanager
def _forwarding(started: "asyncio.Future[Process]") -> Iterator[None]:
    """Pass SIGINT and SIGTERM on, as soon as there is a command, instead of ending by them."""

    def forward(number: int) -> None:
        # Ctrl-C goes to everybody in the terminal's foreground: the command has it already.
        if number != signal.SIGINT or not _in_foreground():
            started.add_done_callback(partial(_send, number))

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, forward, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _send(number: int, started: "asyncio.Future[Process]") -> None:
    with contextlib.suppress(ProcessLookupError):
        started.result().send_signal(number)


def _in_foreground() -> bool:
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:  # noqa: PTH123  no path of a file
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
