"""Error of a window's energy by meter and method, as the tables of docs/measuring.md.

python -m benchmarks.accuracy_meters [--write]
"""

import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from statistics import mean, median

from nvml_stub import SENSORS, compile_stub

from benchmarks.accuracy_meters.drive import (
    COUNTER,
    END_NS,
    GAUGE,
    OBSERVED,
    START_NS,
    Recording,
    Window,
    record,
)
from benchmarks.accuracy_meters.waves import WAVES, Wave, square_of
from benchmarks.page import pair, table, write_between_marks
from melodi.clock import NS_PER_SECOND

PAGE = Path(__file__).resolve().parents[2] / "docs" / "measuring.md"
SEEDS = range(12)
LENGTHS = (0.05, 0.1, 0.25, 0.5, 1, 3, 10)
WINDOWS = 12
"""Of each length, in each recording."""
BOUNDED = 60
"""Windows of any length, in each recording, to try the bounds on."""
DUTY_SECONDS = (0.02, 0.1, 0.14)

Method = Callable[[Recording, Window], float]
METHODS: dict[str, Method] = {
    "MELODI": lambda seen, window: _known(seen.melodi(window).joules),
    "MELODI, no counter": lambda seen, window: _known(seen.melodi(window, GAUGE).joules),
    "counter, two readings": Recording.two_readings,
    "power.draw, padded": Recording.padded_draw,
}
INTRODUCTION = """
Written by `python -m benchmarks.accuracy_meters --write`: the real binding over the compiled stub
driver, in virtual time, {recordings} recordings of 2 min, sensors of unknown phase. Refresh, mean
and observed share of each family are the published ones; **the waves are ours, and no hardware was
asked.** Squares are 100 W and 400 W with periods of 60 ms to 3 s, ramps 100 W to 600 W and back in
0.5 s to 4 s; decode-like is idling at 90 W, prefill of 30 to 400 ms near 620 W, decoding that
ripples round 350 W for 0.2 s to 8 s.

- **MELODI**: windows on the curve of our sampler, which polls the energy counter at 20 Hz up to
  5 ms late; **no counter**: the same on a GPU that has none, by its power now.
- **counter, two readings**: what the counter says at the end less what it said at the start, as
  CodeCarbon does for a task. It reads every 15 s unless told otherwise: a window inside a longer
  run is no finer than that. This is our own code of its rule, at its best: read exactly then.
- **power.draw, padded**: mean power every 100 ms, trapezoids, half a second of padding on both
  sides: the way of the original MELODI.

Absolute error of a window's energy by its length, median / 90th percentile in %, over all families
and waves:
"""
DUTY = """
**What cannot be mended.** The power sensors of Hopper and GA100 see 25 ms of each 100 ms, so they
are blind to what keeps step with them, and no arithmetic on their values brings it back. Worst
error of windows of 10 s, whatever the phase, on square waves of these periods; the last row is for
a counter that adds up only what the sensor sees, which nobody documents either way:
"""
BOUNDS = """
**Bounds**, with power between 0 and 1.1 times the limit of 700 W: {count} windows of 20 ms to 10 s,
log-uniform, over all families and waves; {held:.2%} hold the truth. Median width (high - low) in %
of the truth, by length:

{widths}

Without a counter there is no such promise: what a sensor did not look at, or what was not read of
it, may have been anything. Windows whose bounds hold, by family:

{by_family}
"""


def _known(joules: float | None) -> float:
    assert joules is not None, "a window inside the recording is known"
    return joules


def windows(chance: random.Random, seconds: float, count: int) -> list[Window]:
    length_ns = round(seconds * NS_PER_SECOND)
    starts = (chance.randrange(START_NS, END_NS - length_ns) for _ in range(count))
    return [Window(start_ns, start_ns + length_ns) for start_ns in starts]


class Study:
    """All recordings of families and waves, and the errors that the methods made on them."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self._errors: dict[tuple[str, str, str, float], list[float]] = defaultdict(list)
        self._held: dict[tuple[str, int], list[bool]] = defaultdict(list)
        self._widths: dict[float, list[float]] = defaultdict(list)
        self.recordings = 0

    def run(self) -> None:
        for family, sensor in SENSORS.items():
            for name, make in WAVES.items():
                for seed in SEEDS:
                    chance = random.Random(f"{family} {name} {seed}")

                    def use(
                        seen: Recording,
                        key: tuple[str, str] = (family, name),
                        chance: random.Random = chance,
                    ) -> None:
                        self._compare(seen, key, chance)
                        self._bound(seen, key[0], chance)

                    record(self._library, sensor, make(seed), seed, use)
                    self.recordings += 1
                print(family, name, file=sys.stderr, flush=True)

    def _compare(self, seen: Recording, key: tuple[str, str], chance: random.Random) -> None:
        for seconds in LENGTHS:
            for window in windows(chance, seconds, WINDOWS):
                truth = seen.truth(window)
                for name, method in METHODS.items():
                    error = abs(method(seen, window) / truth - 1) * 100
                    self._errors[(*key, name, seconds)].append(error)

    def _bound(self, seen: Recording, family: str, chance: random.Random) -> None:
        for _ in range(BOUNDED):
            (window,) = windows(chance, 0.02 * 500 ** chance.random(), 1)
            truth = seen.truth(window)
            for device in (COUNTER, GAUGE):
                found = seen.melodi(window, device)
                low, high = _known(found.low_joules), _known(found.high_joules)
                self._held[family, device].append(low <= truth <= high)
                if device == COUNTER:
                    seconds = (window.end_ns - window.start_ns) / NS_PER_SECOND
                    nearest = min(LENGTHS, key=lambda one: max(one, seconds) / min(one, seconds))
                    self._widths[nearest].append((high - low) / truth * 100)

    def summary(self) -> str:
        """Each method over everything."""
        rows = [
            [name, *(pair(self._over(SENSORS, WAVES, name, one)) for one in LENGTHS)]
            for name in METHODS
        ]
        return table(["method", *_lengths()], rows)

    def errors_table(self, wave: str) -> str:
        rows = [
            [family, name, *(pair(self._over([family], [wave], name, one)) for one in LENGTHS)]
            for family in SENSORS
            for name in METHODS
        ]
        return f"{wave.capitalize()}:\n\n{table(['', 'method', *_lengths()], rows)}"

    def _over(
        self, families: Iterable[str], waves: Iterable[str], name: str, seconds: float
    ) -> list[float]:
        keys = product(families, waves)
        return [one for key in keys for one in self._errors[(*key, name, seconds)]]

    def bounds(self) -> str:
        held = [one for family in SENSORS for one in self._held[family, COUNTER]]
        widths = [[f"{median(self._widths[seconds]):.1f}" for seconds in LENGTHS]]
        shares = [[f"{mean(self._held[family, GAUGE]):.1%}" for family in SENSORS]]
        return BOUNDS.strip().format(
            count=f"{len(held):,}",
            held=mean(held),
            widths=table(_lengths(), widths),
            by_family=table(list(SENSORS), shares),
        )


def _lengths() -> list[str]:
    return [f"{one * 1_000:g} ms" if one < 1 else f"{one:g} s" for one in LENGTHS]


def duty_table(library: Path) -> str:
    """Worst error over phases, for what a sensor that sees part of the time may miss."""
    methods: dict[str, Method] = METHODS | {
        "MELODI, counter of what is observed": lambda seen, window: _known(
            seen.melodi(window, OBSERVED).joules
        )
    }
    worst: dict[tuple[str, str, float], float] = defaultdict(float)
    for family in ("Hopper", "GA100"):
        for period in DUTY_SECONDS:
            for seed in SEEDS:

                def use(seen: Recording, family: str = family, period: float = period) -> None:
                    for window in windows(random.Random(period), 10, WINDOWS):
                        truth = seen.truth(window)
                        for name, method in methods.items():
                            error = abs(method(seen, window) / truth - 1) * 100
                            key = (family, name, period)
                            worst[key] = max(worst[key], error)

                wave: Wave = square_of(period)
                record(library, SENSORS[family], wave, seed, use)
    rows = [
        [family, name, *(f"{worst[family, name, period]:.1f}" for period in DUTY_SECONDS)]
        for family in ("Hopper", "GA100")
        for name in methods
    ]
    periods = [f"{period * 1_000:.0f} ms" for period in DUTY_SECONDS]
    return f"{DUTY.strip()}\n\n{table(['', 'method', *periods], rows)}"


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        library = compile_stub(Path(folder))
        study = Study(library)
        study.run()
        duty = duty_table(library)
    introduction = INTRODUCTION.strip().format(recordings=study.recordings)
    tables = [study.errors_table(wave) for wave in WAVES]
    text = "\n\n".join([introduction, study.summary(), study.bounds(), duty, *tables])
    print(text)
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)
    if "--write" in sys.argv[1:]:
        write_between_marks(PAGE, "meters", text)


if __name__ == "__main__":
    main()
