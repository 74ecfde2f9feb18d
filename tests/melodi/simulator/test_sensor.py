"""The power sensor."""

from hypothesis import given
from hypothesis import strategies as st

from melodi.simulator.core import Core
from melodi.simulator.jobs import Submission
from melodi.simulator.sensor import PowerSensor
from melodi.simulator.settings import SimulatorSettings

SECOND = 1_000_000_000
refresh = st.integers(1_000_000, 300_000_000)


def _busy_core(server: SimulatorSettings) -> Core:
    core = Core(server, loaded=("m", 0))
    core.submit(Submission(model="m", prompt=range(50), output_tokens=100), SECOND // 3)
    return core


@given(refresh, st.integers(0, 10**9), st.lists(st.integers(0, 3 * SECOND), min_size=1))
def test_a_reading_is_the_truth_of_the_last_renewal(
    refresh_ns: int, phase_ns: int, times: list[int]
) -> None:
    """Energy and power are exact, only as old as the time since the last tick of the phase."""
    core = _busy_core(SimulatorSettings(refresh_ns=refresh_ns, phase_ns=phase_ns))
    sensor = PowerSensor(core)
    for at_ns in times:
        tick = max(t for t in range(phase_ns % refresh_ns - refresh_ns, at_ns + 1, refresh_ns))
        assert sensor.read(at_ns) == (core.energy_uj(tick), core.power_uw(tick))


@given(st.lists(st.integers(0, 3 * SECOND), min_size=2))
def test_the_counter_never_falls(times: list[int]) -> None:
    """Read in order of time, energy only grows."""
    sensor = PowerSensor(_busy_core(SimulatorSettings()))
    energies = [sensor.read(at_ns)[0] for at_ns in sorted(times)]
    assert energies == sorted(energies)


def test_between_renewals_the_value_holds_and_then_jumps() -> None:
    """Two reads within one refresh agree; the next refresh brings what was drawn since."""
    sensor = PowerSensor(_busy_core(SimulatorSettings(refresh_ns=100_000_000)))
    first, second, third = (sensor.read(ms * 1_000_000)[0] for ms in (500, 599, 600))
    assert first == second < third


def test_the_sensor_says_what_it_is() -> None:
    """Its domain is a simulated GPU that nobody else can draw from."""
    domain = PowerSensor(_busy_core(SimulatorSettings())).domain
    assert (domain.name, domain.origin, domain.exclusive) == ("gpu:SIMULATED-0", "simulator", True)
    assert domain.max_power_watts == 600.0
