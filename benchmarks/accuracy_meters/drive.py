"""Polls over the compiled stub as the sampler does, and keeps what each method saw."""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pynvml
from nvml_stub import Call, NvmlStub, Sensor, installed

from benchmarks.accuracy_meters.waves import LIMIT_WATTS, Wave
from collectors.nvml import NvmlCollector
from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import UJ_PER_JOULE
from melodi.energy.window import WindowEnergy, window_energy
from melodi.sampling.meters import EnergyCurve

MS = 1_000_000
PERIOD_NS = 50 * MS
LATE_NS = 5 * MS
DRAW_PERIOD_NS = 100 * MS
PADDING_NS = NS_PER_SECOND // 2
START_NS, END_NS = 10 * NS_PER_SECOND, 130 * NS_PER_SECOND
"""Windows lie between the two."""
COUNTER, GAUGE, OBSERVED = range(3)
"""Three equal GPUs: one with its counter, one without, and one that counts what it observes."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time that somebody wants the energy of."""

    start_ns: int
    end_ns: int


class Recording:
    """One wave on GPUs of one family, as the methods see it. The stub stays installed."""

    def __init__(self, stub: NvmlStub, curves: list[EnergyCurve], draws: list[tuple[int, float]]):
        self._stub = stub
        self._curves = curves
        self._draw_times = [at_ns for at_ns, _ in draws]
        self._draws = draws
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(COUNTER)

    def truth(self, window: Window) -> float:
        return self._stub.true_energy_uj(window.start_ns, window.end_ns) / UJ_PER_JOULE

    def melodi(self, window: Window, device: int = COUNTER) -> WindowEnergy:
        """Our window arithmetic over our sampler's curve."""
        curve = self._curves[device]
        start, end = curve.cut(window.start_ns), curve.cut(window.end_ns)
        return window_energy(curve.domain, start, end, summable=True)

    def padded_draw(self, window: Window) -> float:
        """Trapezoids over `power.draw`, with half a second of padding on both sides."""
        first = bisect_left(self._draw_times, window.start_ns - PADDING_NS)
        last = bisect_right(self._draw_times, window.end_ns + PADDING_NS)
        return sum(
            (one[1] + other[1]) / 2 * (other[0] - one[0]) / NS_PER_SECOND
            for one, other in pairwise(self._draws[first:last])
        )

    def two_readings(self, window: Window) -> float:
        """What the counter says at the end less what it said at the start."""
        return (self._counter_mj(window.end_ns) - self._counter_mj(window.start_ns)) / 1_000

    def _counter_mj(self, at_ns: int) -> int:
        self._stub.set_time_ns(at_ns)
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


def record(
    library: Path, sensor: Sensor, wave: Wave, seed: int, use: Callable[[Recording], None]
) -> None:
    """Poll the wave for its whole length, then let `use` have the recording."""
    chance = random.Random(seed)
    with installed(library, devices=3) as stub:
        phase_ms = chance.uniform(0, sensor.refresh_ms)
        for device in (COUNTER, GAUGE, OBSERVED):
            stub.behave_as(sensor, phase_ms=phase_ms, device=device)
            stub.set_limit_watts(LIMIT_WATTS, device=device)
            stub.script(wave.script, repeat_seconds=wave.repeat_seconds, device=device)
        stub.fail(Call.ENERGY, pynvml.NVML_ERROR_NOT_SUPPORTED, device=GAUGE)
        stub.count_observed(device=OBSERVED)
        stub.set_time_ns(chance.randrange(NS_PER_SECOND))
        collector = NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep)
        curves = {domain.name: EnergyCurve(domain) for domain in collector.domains}
        draws = _run(stub, collector, curves, chance)
        use(Recording(stub, list(curves.values()), draws))
        collector.close()


def _run(
    stub: NvmlStub, collector: NvmlCollector, curves: dict[str, EnergyCurve], chance: random.Random
) -> list[tuple[int, float]]:
    """Beat until the end, a little late each time, beside a reader of `power.draw`."""
    draws: list[tuple[int, float]] = []
    handle = pynvml.nvmlDeviceGetHandleByIndex(COUNTER)
    draw_ns = stub.now_ns()
    for due_ns in range(stub.now_ns(), END_NS + 3 * NS_PER_SECOND, PERIOD_NS):
        beat_ns = due_ns + chance.randrange(LATE_NS)
        while draw_ns <= beat_ns:
            stub.set_time_ns(draw_ns)
            draws.append((draw_ns, pynvml.nvmlDeviceGetPowerUsage(handle) / 1_000))
            draw_ns += DRAW_PERIOD_NS
        stub.set_time_ns(beat_ns)
        for reading in collector.read().values:
            curves[reading.domain].feed(reading)
    return draws
