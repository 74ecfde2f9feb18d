"""What is simulated: clients, engines, a sensor, and what of it the daemon sees."""

from dataclasses import dataclass

from melodi.simulator.laws import PowerLaw

MS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One closed loop of clients on one simulated device."""

    law: PowerLaw
    clients: int
    refresh_ms: int
    requests: int
    streamed: float = 1.0
    """Share of requests whose tokens are seen as they come."""
    prefix_cache: bool = False
    slots: int = 64
    steps_told: bool = False
    """Whether the engine's step counter is read once a second, as vLLM's is."""
    queue_told: bool = False
    """Whether the backend tells how long a request waited, as Ollama does."""
    phases_told_by: str = ""
    """The kind of backend as which it tells how long each whole answer's phases took; "": none."""
    models: int = 1
    """Engines side by side on the device, each with a model and its share of the clients."""
    uneven: bool = False
    """All clients but one are the first engine's."""
    reload: bool = False
    """In the middle the clients turn to another model, which has to be loaded."""
    foreign_watts: float = 0.0
    """Others draw between 0 and so much; our share of the work is told once a second."""
    prompt_tokens: int | None = None
    """Of every prompt; None: about 200, more or less."""
    held_up_ms: float = 0.0
    """What carries requests and answers stands still for up to so long, about twice a second."""
    poll_ms: int = 50
    seed: int = 0

    def engine_of(self, client: int) -> int:
        """Whose client it is."""
        return int(client == 0) if self.uneven else client % self.models
