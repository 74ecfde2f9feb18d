"""The energy record: one per request, unknown is None, units are base SI.

Nobody changes one that is made. They are not frozen: that would make them three times as dear.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Quality(StrEnum):
    """How far a number can be trusted, best first; the worst of a record's domains wins."""

    MEASURED = "measured"
    INTERPOLATED = "interpolated"
    SUB_SENSOR = "sub_sensor"
    GAP = "gap"
    ESTIMATED = "estimated"
    NONE = "none"


class Status(StrEnum):
    """How a request ended."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"
    INTERRUPTED = "interrupted"


@dataclass(slots=True)
class DomainEnergy:
    """One request's joules in one power domain.

    There is one for each domain of each request: by keyword it would be three times as dear.
    """

    scope: str
    """What the sensor covers: a GPU, a module with its processor, a package, memory."""
    source: str
    """The sensor and which of its calls, such as `rapl:powercap`."""
    joules: float | None = None
    """Active plus idle share, or their undivided sum where idle is unknown."""
    active_joules: float | None = None
    idle_share_joules: float | None = None
    load_joules: float | None = None
    low_joules: float | None = None
    high_joules: float | None = None
    exclusive_low_joules: float | None = None
    exclusive_high_joules: float | None = None
    idle_watts: float | None = None
    """The idle floor by which the joules were split."""
    quality: Quality = Quality.NONE
    reasons: tuple[str, ...] = ()
    """Why the quality is what it is."""


@dataclass(slots=True, kw_only=True)
class EnergyRecord:
    """What one request was and what it cost. Every field is a column of the table `requests`."""

    # identity
    id: str
    seq: int | None = None
    """Per host, without gaps, in commit order; None until the record is final."""
    revision: int = 1
    provisional: bool = True
    origin: str | None = None
    host: str
    backend: str
    backend_kind: str
    backend_version: str | None = None
    model: str | None = None
    model_digest: str | None = None
    campaign: str | None = None
    task: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    prompt_hash: str | None = None
    prompt: str | None = None
    response: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    generation: dict[str, object] = field(default_factory=dict)
    streamed: bool | None = None
    status: Status
    finish_reason: str | None = None
    attempt: int = 1
    error: str | None = None
    http_status: int | None = None
    # time
    scheduled_at: datetime | None = None
    started_at: datetime
    duration_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    time_per_output_token_seconds: float | None = None
    queue_seconds: float | None = None
    load_seconds: float | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    concurrency_mean: float | None = None
    # tokens
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    tokens_source: str | None = None
    # energy
    footprint: str | None = None
    energy_joules: float | None = None
    active_joules: float | None = None
    idle_share_joules: float | None = None
    load_joules: float | None = None
    prefill_joules: float | None = None
    decode_joules: float | None = None
    gpu_joules: float | None = None
    cpu_joules: float | None = None
    dram_joules: float | None = None
    low_joules: float | None = None
    high_joules: float | None = None
    exclusive_low_joules: float | None = None
    exclusive_high_joules: float | None = None
    sensor_uncertainty_ratio: float | None = None
    joules_per_output_token: float | None = None
    domains: dict[str, DomainEnergy] = field(default_factory=dict)
    policy: str | None = None
    policy_version: int | None = None
    quality: Quality = Quality.NONE
    quality_reasons: tuple[str, ...] = ()
    # hardware at the time
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_watts: float | None = None
    gpu_temperature_celsius: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    """Empty: nothing throttled it."""
