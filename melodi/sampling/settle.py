"""Asks all curves at once: waits until they have passed a moment, and gives what lies between."""

import asyncio
import contextlib
from collections.abc import Mapping

from melodi.energy.window import Cut, Missing, WindowEnergy, summable, window_energy
from melodi.sampling.meters import EnergyCurve

FIRST_EDGE_SECONDS = 1.0
SETTLE_SECONDS = 3.0
"""A sensor that has not moved for so long is not waited for."""
_POLL_SECONDS = 0.02

Cuts = Mapping[str, Cut | Missing]
"""One moment on each curve, by domain."""


async def first_edges(curves: Mapping[str, EnergyCurve]) -> None:
    """Let the curves begin, so that what comes is measured; a dead sensor waits for none."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_EDGE_SECONDS):
            while not all(curve.edges for curve in curves.values()):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)


async def cuts_at(curves: Mapping[str, EnergyCurve], at_ns: int) -> Cuts:
    """The place of a moment, just now or past, on each curve.

    Waits at most SETTLE_SECONDS for those that have not got there.
    """
    cuts: dict[str, Cut | Missing] = {}
    waiting = dict(curves)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while waiting:
                cuts |= {name: curve.cut(at_ns) for name, curve in waiting.items()}
                waiting = {
                    name: curve for name, curve in waiting.items() if cuts[name] is Missing.AFTER
                }
                if waiting:
                    await asyncio.sleep(_POLL_SECONDS)
    return cuts


def energies(
    curves: Mapping[str, EnergyCurve], starts: Cuts, ends: Cuts
) -> dict[str, WindowEnergy]:
    """The energy of each domain between two cuts of its curve.

    Of one whose meter came in between, the start is not known.
    """
    added = summable(curves[name].domain for name in ends if name in curves)
    return {
        name: window_energy(
            curves[name].domain,
            starts.get(name, Missing.BEFORE),
            ends[name],
            summable=name in added,
        )
        for name in ends
        if name in curves
    }
