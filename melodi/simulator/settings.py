"""What a simulated server is like: its models, its limits, its power."""

from dataclasses import dataclass

from melodi.errors import ConfigError
from melodi.simulator.laws import PowerLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """One simulated server; equal settings and equal requests give equal joules."""

    models: tuple[str, ...] = ("simulated",)
    max_running: int = 64
    """Requests served together; the others queue (Ollama's NUM_PARALLEL=1 is 1)."""
    max_step_tokens: int = 2048
    """Tokens one step may hold: one per decoding request, the rest in prefill chunks."""
    context_tokens: int = 8192
    """The longest prompt and answer together that a model takes."""
    power_law: PowerLaw = PowerLaw.ADDITIVE
    seed: int = 0
    idle_watts: float = 110.0
    """Drawn always, working or not."""
    max_dynamic_watts: float = 490.0
    """The most that a step draws above idle; one that would draw more takes longer."""
    load_seconds: float = 2.0
    load_watts: float = 120.0
    """Drawn above idle while a model loads."""
    tail_watts: float = 0.0
    """Drawn above idle for `tail_seconds` after the last work."""
    tail_seconds: float = 0.0
    refresh_ns: int = 100_000_000
    """The power sensor renews its value this often, ..."""
    phase_ns: int = 0
    """... this long after each whole multiple of it."""
    request_metrics: bool = False
    """Whether vLLM answers carry `metrics`, as with --enable-per-request-metrics."""

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("a simulator serves at least one model; name one in models")
        if not 1 <= self.max_running <= self.max_step_tokens:
            raise ConfigError("max_running must lie between 1 and max_step_tokens")
        if self.max_dynamic_watts <= 0 or self.refresh_ns <= 0:
            raise ConfigError("max_dynamic_watts and refresh_ns must be above 0")
        joules = (self.idle_watts, self.load_seconds, self.load_watts)
        if min(*joules, self.tail_watts, self.tail_seconds) < 0:
            raise ConfigError("watts and seconds of a simulator must be 0 or more")
        if self.context_tokens < 2:
            raise ConfigError("context_tokens must leave room for a prompt and an answer")

    @property
    def max_watts(self) -> float:
        """What the device never exceeds."""
        above_idle = max(self.max_dynamic_watts, self.load_watts, self.tail_watts)
        return self.idle_watts + above_idle
