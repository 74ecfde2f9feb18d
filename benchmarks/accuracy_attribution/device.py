"""A simulated device: one engine or several side by side, others at work, one energy counter."""

from random import Random

from benchmarks.accuracy_attribution.scenario import MS, Scenario
from collectors.base import Domain, Kind, Measure, Origin
from melodi.inference.engine_meter import EngineCounters
from melodi.simulator.core import Core
from melodi.simulator.jobs import Event, Submission, Truth
from melodi.simulator.settings import SimulatorSettings

FOREIGN_NS = 700 * MS
SEEN_STRETCHES = 10_000


class Device:
    """Engines take turns by nobody: each runs as if alone, and their energies add up.

    A request's key tells its engine: it is the engine's number modulo the number of engines.
    """

    def __init__(self, scenario: Scenario, random: Random) -> None:
        self._refresh_ns = scenario.refresh_ms * MS
        self._phase_ns = random.randrange(self._refresh_ns)
        self.settings = SimulatorSettings(
            models=("simulated", "other"),
            power_law=scenario.law,
            max_running=scenario.slots,
            seed=scenario.seed,
        )
        loaded = ("simulated", self.settings.context_tokens)
        self._cores = [Core(self.settings, loaded=loaded) for _ in range(scenario.models)]
        self._foreign_watts = scenario.foreign_watts
        self._levels = (
            [random.random() for _ in range(SEEN_STRETCHES)] if self._foreign_watts else []
        )

    @property
    def domain(self) -> Domain:
        """What the counter covers."""
        return Domain(
            name="gpu:SIMULATED-0",
            kind=Kind.GPU,
            scope="gpu",
            source="simulated:counter",
            measure=Measure.COUNTER,
            refresh_ns=self._refresh_ns,
            max_power_watts=self.settings.max_watts * len(self._cores) + self._foreign_watts,
            origin=Origin.SIMULATOR,
        )

    def submit(self, engine: int, submission: Submission, at_ns: int) -> int:
        """Queue a request at one of the engines; gives its key."""
        return self._cores[engine].submit(submission, at_ns) * len(self._cores) + engine

    def truth(self, key: int) -> Truth:
        """What is true of a request."""
        return self._cores[key % len(self._cores)].truth(key // len(self._cores))

    def advance(self, until_ns: int) -> int:
        """Let time go on until something happens, at most to `until_ns`; gives the time."""
        events = [core.next_event_ns() for core in self._cores]
        now_ns = min(until_ns, *(one for one in events if one is not None), until_ns)
        for core in self._cores:
            core.advance(now_ns)
        return now_ns

    def drain(self) -> list[tuple[int, Event]]:
        """What has happened, by key."""
        count = len(self._cores)
        return [
            (event.request * count + engine, event)
            for engine, core in enumerate(self._cores)
            for event in core.drain()
        ]

    def read(self, at_ns: int) -> int:
        """Cumulative microjoules, as they were at the counter's last renewal."""
        renewed_ns = at_ns - (at_ns - self._phase_ns) % self._refresh_ns
        dynamic = sum(self._dynamic_uj(core, renewed_ns) for core in self._cores)
        return round(dynamic + self._foreign_uj(renewed_ns) + self._idle_uj(renewed_ns))

    def counters(self, engine: int, at_ns: int) -> EngineCounters:
        """What an engine's counters say."""
        core = self._cores[engine]
        core.advance(at_ns)
        totals = core.totals()
        return EngineCounters(
            at_ns=at_ns,
            half_width_ns=MS,
            process=0.0,
            steps={"0": totals.steps},
            prefill_tokens=totals.prompt_tokens - totals.cached_tokens,
            output_tokens=totals.output_tokens,
        )

    def shares(self, start_ns: int, end_ns: int) -> dict[str, float]:
        """Each engine's true part of the dynamic energy of a stretch."""
        ours = [
            self._dynamic_uj(core, end_ns) - self._dynamic_uj(core, start_ns)
            for core in self._cores
        ]
        whole = sum(ours) + self._foreign_uj(end_ns) - self._foreign_uj(start_ns)
        return {str(engine): one / whole if whole else 0.0 for engine, one in enumerate(ours)}

    def _idle_uj(self, at_ns: int) -> float:
        return self.settings.idle_watts * max(0, at_ns) / 1_000

    def _dynamic_uj(self, core: Core, at_ns: int) -> float:
        return core.energy_uj(at_ns) - self._idle_uj(at_ns)

    def _foreign_uj(self, at_ns: int) -> float:
        if not self._levels or at_ns <= 0:
            return 0.0
        whole, part = divmod(at_ns, FOREIGN_NS)
        levels = sum(self._levels[:whole]) + self._levels[whole] * part / FOREIGN_NS
        return levels * self._foreign_watts * FOREIGN_NS / 1_000
