"""From a real binding to a window: joules and bounds hold, whatever family of GPUs is read."""

import random
from pathlib import Path

import pytest
from nvml_stub import SENSORS, compile_stub

from benchmarks.accuracy_meters.drive import END_NS, GAUGE, START_NS, Recording, Window, record
from benchmarks.accuracy_meters.waves import decoding
from melodi.clock import NS_PER_SECOND
from melodi.energy.record import Quality


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_stub(tmp_path_factory.mktemp("nvml"))


def windows() -> list[Window]:
    """Forty of 1 to 10 s, anywhere."""
    chance = random.Random(7)
    lengths = [round(chance.uniform(1, 10) * NS_PER_SECOND) for _ in range(40)]
    starts = [chance.randrange(START_NS, END_NS - length_ns) for length_ns in lengths]
    return [
        Window(start_ns, start_ns + length_ns)
        for start_ns, length_ns in zip(starts, lengths, strict=True)
    ]


@pytest.mark.parametrize("family", SENSORS)
def test_windows_of_a_second_and_more_are_true(library: Path, family: str) -> None:
    """Under power as decoding has it, a counter is right to some percent, and its bounds hold."""
    checked = []

    def check(seen: Recording) -> None:
        for window in windows():
            truth, found = seen.truth(window), seen.melodi(window)
            assert found.joules == pytest.approx(truth, rel=0.08)
            assert found.low_joules <= truth <= found.high_joules
            assert found.quality is Quality.MEASURED
            gauge = seen.melodi(window, GAUGE)
            assert gauge.joules == pytest.approx(truth, rel=0.2)
            assert gauge.quality is Quality.INTERPOLATED
            checked.append(window)

    record(library, SENSORS[family], decoding(1), 1, check)
    assert len(checked) == 40
