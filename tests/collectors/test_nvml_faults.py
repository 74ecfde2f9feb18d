"""What goes wrong with GPUs while they are watched, and what the collector makes of it."""

import contextlib
import os
import threading
from collections.abc import Callable

import pynvml
import pytest
from nvml_stub import Call, NvmlStub

from collectors.base import Measure, Reading
from collectors.counter import Counter, GapReason
from collectors.errors import ReadFailed
from collectors.nvml import NvmlCollector

LOST = pynvml.NVML_ERROR_GPU_IS_LOST
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


def opened(stub: NvmlStub) -> NvmlCollector:
    return NvmlCollector(now_ns=stub.now_ns, sleep=stub.sleep)


def only(collector: NvmlCollector) -> Reading:
    (reading,) = collector.read().values
    return reading


def test_a_transient_refusal_costs_one_reading(stub: NvmlStub) -> None:
    """Four NotSupported in a row are a hiccup: no energy is given, and the next read works."""
    collector = opened(stub)
    for _ in range(3):
        stub.fail(Call.ENERGY, NOT_SUPPORTED, count=4)
        for _ in range(4):
            with pytest.raises(ReadFailed):
                collector.read()
        assert only(collector).energy_uj is not None
    assert stub.calls(Call.UUID_LOOKUP) == 0


def test_a_transient_refusal_at_the_start_does_not_cost_the_counter(stub: NvmlStub) -> None:
    """Somebody else's fast polling must not turn a counter into a gauge."""
    stub.fail(Call.ENERGY, NOT_SUPPORTED, count=4)
    assert opened(stub).domains[0].measure is Measure.COUNTER


def test_five_refusals_in_a_row_are_believed(stub: NvmlStub) -> None:
    """A GPU that refuses on and on is left alone for a while."""
    collector = opened(stub)
    stub.fail(Call.ENERGY, NOT_SUPPORTED)
    for _ in range(5):
        with pytest.raises(ReadFailed):
            collector.read()
    asked = stub.calls(Call.ENERGY)
    with pytest.raises(ReadFailed, match="lost"):
        collector.read()
    assert stub.calls(Call.ENERGY) == asked


@pytest.mark.parametrize(
    ("call", "ask", "answered"),
    [
        (Call.ENERGY, lambda one: one.read().values[0].energy_uj, 0),
        (Call.UTILISATION, lambda one: one.conditions()[0].utilisation_ratio, 0.5),
    ],
)
def test_a_driver_that_hangs_does_not_hold_up_the_interpreter(
    stub: NvmlStub, call: Call, ask: Callable[[NvmlCollector], object], answered: object
) -> None:
    """The call into it goes without the interpreter's lock: others run until it answers."""
    stub.set_utilisation_percent(50)
    collector = opened(stub)
    asked = stub.calls(call)
    answer, let_answer = os.pipe()
    stub.hang_until_readable(answer)
    read: list[object] = []

    def hang() -> None:
        with contextlib.suppress(ReadFailed):
            read.append(ask(collector))

    hanging = threading.Thread(target=hang, daemon=True)
    hanging.start()
    while stub.calls(call) == asked:
        hanging.join(0.001)
    assert hanging.is_alive()
    os.write(let_answer, b".")
    hanging.join(5)
    assert read == [answered]
    os.close(answer)
    os.close(let_answer)


def test_a_lost_gpu_is_one_failure_among_the_others_readings(eight: NvmlStub) -> None:
    """Seven readings and one failure that names its domain; nothing stale is served."""
    collector = opened(eight)
    eight.lose_handles(device=2)
    eight.fail(Call.UUID_LOOKUP, LOST, device=2)
    for _ in range(3):
        readings = collector.read()
        assert len(readings.values) == 7
        assert [failure.domain for failure in readings.failures] == [f"gpu:{eight.uuid(2)}"]
    assert len(collector.conditions()) == 7
    assert f"gpu:{eight.uuid(2)}" not in collector.running_processes()


def test_a_lost_gpu_is_found_again_by_its_uuid(stub: NvmlStub) -> None:
    """Its handle is dead; a second later the look-up by UUID brings it back."""
    collector = opened(stub)
    stub.lose_handles()
    with pytest.raises(ReadFailed):
        collector.read()
    stub.advance(0.9)
    with pytest.raises(ReadFailed, match="is lost"):
        collector.read()
    assert stub.calls(Call.UUID_LOOKUP) == 0
    stub.advance(0.2)
    assert only(collector).energy_uj is not None
    assert stub.calls(Call.UUID_LOOKUP) == 1


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_UNKNOWN,
        pynvml.NVML_ERROR_UNINITIALIZED,
    ],
)
def test_a_dead_handle_is_dropped_at_once(stub: NvmlStub, code: int) -> None:
    """One such answer is final for the handle: it is not asked again, a new one is looked up."""
    collector = opened(stub)
    stub.fail(Call.ENERGY, code, count=1)
    with pytest.raises(ReadFailed):
        collector.read()
    asked = stub.calls(Call.ENERGY)
    with pytest.raises(ReadFailed, match="is lost"):
        collector.read()
    assert stub.calls(Call.ENERGY) == asked
    stub.advance(1.1)
    assert only(collector).energy_uj is not None
    assert stub.calls(Call.UUID_LOOKUP) == 1


def test_a_gpu_that_was_found_again_is_found_as_fast_the_next_time(stub: NvmlStub) -> None:
    """The back-off and the wait for a new start both begin anew after a success."""
    collector = opened(stub)
    for _ in range(4):
        stub.lose_handles()
        stub.fail(Call.UUID_LOOKUP, LOST, count=3)
        for _ in range(14):
            with pytest.raises(ReadFailed):
                collector.read()
            stub.advance(1)
        stub.advance(1.5)
        assert only(collector).energy_uj is not None
    assert stub.calls(Call.INIT) == 1


def test_looking_for_a_lost_gpu_backs_off_to_a_minute(eight: NvmlStub) -> None:
    """In an hour of 20 Hz polling a GPU that is gone is looked up about once a minute."""
    collector = opened(eight)
    eight.lose_handles(device=0)
    eight.fail(Call.UUID_LOOKUP, LOST, device=0)
    for _ in range(3_600):
        eight.advance(1)
        collector.read()
    assert 50 < eight.calls(Call.UUID_LOOKUP, device=0) < 80
    assert eight.calls(Call.INIT) == 1


def test_when_every_gpu_stays_lost_nvml_is_started_anew(stub: NvmlStub) -> None:
    """A driver that was taken away comes back only through a new start, once in 30 seconds."""
    collector = opened(stub)
    stub.lose_handles()
    stub.fail(Call.UUID_LOOKUP, LOST)
    for _ in range(29):
        with pytest.raises(ReadFailed):
            collector.read()
        stub.advance(1)
    assert stub.calls(Call.INIT) == 1
    for _ in range(3):
        with pytest.raises(ReadFailed):
            collector.read()
        stub.advance(1)
    assert (stub.calls(Call.INIT), stub.initialised) == (2, 1)
    stub.mend(Call.UUID_LOOKUP)
    stub.advance(60)
    assert only(collector).energy_uj is not None


def test_a_driver_that_is_away_for_a_while_is_started_again_when_it_is_back(
    stub: NvmlStub,
) -> None:
    """A new start that fails is tried again each 30 seconds; no beat raises anything else."""
    collector = opened(stub)
    stub.lose_handles()
    stub.fail(Call.UUID_LOOKUP, LOST)
    stub.fail(Call.INIT, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    for _ in range(100):
        with pytest.raises(ReadFailed):
            collector.read()
        stub.advance(1)
    assert 3 <= stub.calls(Call.INIT) <= 5
    assert stub.initialised == 0
    stub.mend(Call.UUID_LOOKUP)
    stub.mend(Call.INIT)
    for _ in range(100):
        stub.advance(1)
        with contextlib.suppress(ReadFailed):
            only(collector)
    assert only(collector).energy_uj is not None


def test_a_counter_that_starts_again_is_a_gap_of_unknown_size(stub: NvmlStub) -> None:
    """After a reset of the GPU the fall is a new epoch; no 2^64 and no range is added."""
    collector = opened(stub)
    (domain,) = collector.domains
    counter = Counter(range_uj=domain.range_uj, max_power_watts=domain.max_power_watts)

    stub.set_time_ns(0)

    def step() -> object:
        stub.advance(10)
        reading = only(collector)
        assert reading.energy_uj is not None
        return counter.feed(reading.at_ns, reading.energy_uj)

    step()
    assert step() == 3_000_000_000
    stub.restart_counter()
    assert step() == GapReason.RESET
    assert step() == 3_000_000_000


def test_impossible_power_is_rejected(stub: NvmlStub) -> None:
    """588 W from a 35 W part is no reading but a failure."""
    stub.set_limit_watts(35)
    stub.force_power_watts(588)
    stub.fail(Call.ENERGY, NOT_SUPPORTED)
    alone = opened(stub)
    with pytest.raises(ReadFailed, match="588 W"):
        alone.read()
    stub.force_power_watts(35)
    assert only(alone).power_uw == 35_000_000


def test_what_is_plausible_follows_a_limit_moved_at_run_time(stub: NvmlStub) -> None:
    """An administrator who raises the limit does not make true power impossible."""
    stub.set_limit_watts(100)
    stub.fail(Call.ENERGY, NOT_SUPPORTED)
    collector = opened(stub)
    with pytest.raises(ReadFailed, match="300 W"):
        collector.read()
    stub.set_limit_watts(400)
    assert collector.conditions()[0].power_limit_watts == 400
    assert only(collector).power_uw == 300_000_000
    assert collector.domains[0].max_power_watts == pytest.approx(440)


def test_zero_is_a_measurement(stub: NvmlStub) -> None:
    """A GPU that says 0 W says 0, not nothing."""
    stub.script([(1, 300), (2, 0)])
    stub.fail(Call.ENERGY, NOT_SUPPORTED)
    collector = opened(stub)
    stub.set_time_ns(3_000_000_000)
    assert only(collector).power_uw == 0


# ---- a sensor that is stuck ----------------------------------------------------------------


def swing(stub: NvmlStub, collector: NvmlCollector, times: int, *, per_second: int = 10) -> None:
    """Seconds of reading, each with another utilisation, as the sampler would."""
    for second in range(times):
        stub.set_utilisation_percent(90 * (second % 2))
        collector.conditions()
        for _ in range(per_second):
            stub.advance(1 / per_second)
            with contextlib.suppress(ReadFailed):
                collector.read()


def test_a_counter_that_stands_still_while_power_is_drawn_is_stuck(stub: NvmlStub) -> None:
    """Even an idle GPU draws power: two seconds without a millijoule are a failure, not 0 J."""
    collector = opened(stub)
    only(collector)
    stub.set_refresh_ns(3_600_000_000_000)
    for _ in range(19):
        stub.advance(0.1)
        assert only(collector).energy_uj == 0
    stub.advance(0.2)
    with pytest.raises(ReadFailed, match="counts no energy though"):
        collector.read()
    stub.set_refresh_ns(100_000_000)
    assert only(collector).energy_uj == 630_000_000


def test_power_beside_a_counter_is_asked_for_only_in_doubt(stub: NvmlStub) -> None:
    """One call a beat, while the counter moves; where power is refused, the counter is believed."""
    collector = opened(stub)
    proven = stub.calls(Call.INSTANT_GPU)
    for _ in range(100):
        stub.advance(0.05)
        only(collector)
    assert stub.calls(Call.INSTANT_GPU) == proven
    stub.fail(Call.INSTANT_GPU, NOT_SUPPORTED)
    stub.set_refresh_ns(3_600_000_000_000)
    for _ in range(100):
        stub.advance(0.05)
        only(collector)
    assert stub.calls(Call.INSTANT_GPU) > proven


def test_a_frozen_gauge_is_a_failure_until_it_moves(stub: NvmlStub) -> None:
    """With nothing but a stuck gauge the domain's energy is unknown, and said to be."""
    stub.fail(Call.ENERGY, NOT_SUPPORTED)
    stub.force_power_watts(75)
    collector = opened(stub)
    swing(stub, collector, 8)
    with pytest.raises(ReadFailed, match="stuck"):
        collector.read()
    stub.force_power_watts(76)
    assert only(collector).power_uw == 76_000_000


def test_a_frozen_counter_is_a_failure_among_the_others_readings(eight: NvmlStub) -> None:
    """A counter that has stopped while its GPU works counts no joule, and is not 0 J."""
    eight.script([(0, 0)], device=7)
    collector = opened(eight)
    for second in range(8):
        eight.set_utilisation_percent(90 * (second % 2), device=7)
        collector.conditions()
        for _ in range(10):
            eight.advance(0.1)
            readings = collector.read()
    assert len(readings.values) == 7


def test_an_idle_gpu_may_stand_still(stub: NvmlStub) -> None:
    """Without work nothing says that a constant value is wrong, however long it lasts."""
    stub.force_power_watts(75)
    stub.fail(Call.ENERGY, NOT_SUPPORTED)
    collector = opened(stub)
    for _ in range(60):
        collector.conditions()
        stub.advance(1)
        assert only(collector).power_uw == 75_000_000
