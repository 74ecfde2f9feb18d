"""What every column of a record is: its Arrow type, its unit, and one line about it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the native record.

    `arrow_type` is `string`, `json` (a string that holds JSON), `bool`, `int32`, `int64`,
    `float64` or `timestamp[us, tz=UTC]`; `unit` is None where there is none.
    """

    arrow_type: str
    unit: str | None
    description: str


_MOMENT = "timestamp[us, tz=UTC]"


def _text(description: str) -> Column:
    return Column("string", None, description)


def _json(description: str) -> Column:
    return Column("json", None, description)


def _flag(description: str) -> Column:
    return Column("bool", None, description)


def _count(description: str, unit: str | None = None) -> Column:
    return Column("int64", unit, description)


def _small(description: str, unit: str | None = None) -> Column:
    return Column("int32", unit, description)


def _moment(description: str) -> Column:
    return Column(_MOMENT, None, description)


def _seconds(description: str) -> Column:
    return Column("float64", "s", description)


def _joules(description: str) -> Column:
    return Column("float64", "J", description)


def _real(unit: str | None, description: str) -> Column:
    return Column("float64", unit, description)


COLUMNS: dict[str, Column] = {
    "id": _text("The request's id, a UUIDv7: it sorts by time."),
    "seq": _count("Number of the record on its host, without gaps; null until it is final."),
    "revision": _small("1, and one more each time the record was recomputed."),
    "provisional": _flag("True while the energy may still change."),
    "origin": _text("Where the energy comes from: sensor, simulator or import."),
    "host": _text("The machine that measured."),
    "backend": _text("The inference server, by its name in the settings."),
    "backend_kind": _text("ollama, vllm or openai."),
    "backend_version": _text("The version that the server told."),
    "model": _text("The model, as the request called it."),
    "model_digest": _text("The digest of the model's files, where the server tells one."),
    "campaign": _text("The campaign or label that the request belongs to."),
    "task": _text("The kind of task that the prompt sets."),
    "tags": _json("Labels given with the request: an object of strings."),
    "prompt_hash": _text("SHA-256 of the prompt, keyed per installation for passing traffic."),
    "prompt": _text("The prompt, where the settings keep it."),
    "response": _text("The answer, where the settings keep it."),
    "scores": _json("How good the answer was, by name of the score: an object of numbers."),
    "generation": _json("The parameters of generation that were sent: an object."),
    "streamed": _flag("Whether the answer came token by token."),
    "status": _text("How it ended: ok, error, cancelled, incomplete or interrupted."),
    "finish_reason": _text("Why the server stopped, in its own word."),
    "attempt": _small("1 for the first attempt at this prompt."),
    "error": _text("What went wrong."),
    "http_status": _small("The status of the server's answer."),
    "scheduled_at": _moment("When a campaign meant to send it."),
    "started_at": _moment("When it was sent."),
    "duration_seconds": _seconds("From sending to the end of the answer."),
    "time_to_first_token_seconds": _seconds("From sending to the first token, queueing included."),
    "time_per_output_token_seconds": _seconds("Mean time between output tokens after the first."),
    "queue_seconds": _seconds("Waiting in the server, as it reports it."),
    "load_seconds": _seconds("Loading the model, as the server reports it."),
    "prefill_seconds": _seconds("Reading the prompt, as the server reports it."),
    "decode_seconds": _seconds("Writing the answer: as reported, or else as seen."),
    "concurrency_mean": _real("requests", "Mean number of requests in service, this one included."),
    "input_tokens": _count("Tokens of the prompt.", "tokens"),
    "output_tokens": _count("Tokens of the answer.", "tokens"),
    "cached_input_tokens": _count("Those of the prompt that came from a cache.", "tokens"),
    "tokens_source": _text("Who counted the tokens: usage, native, tokenizer or estimated."),
    "footprint": _text("Which parts of the machine the energy covers, such as gpu+cpu."),
    "energy_joules": _joules("The energy of this request: active plus idle share."),
    "active_joules": _joules("What it cost above the idle power."),
    "idle_share_joules": _joules("Its share of the idle power while it was served."),
    "load_joules": _joules("Loading the model for it; not inside energy_joules."),
    "prefill_joules": _joules("The part of active_joules before the first token."),
    "decode_joules": _joules("The part of active_joules from the first token on."),
    "gpu_joules": _joules("The part of energy_joules in GPUs."),
    "cpu_joules": _joules("The part of energy_joules in CPU packages."),
    "dram_joules": _joules("The part of energy_joules in memory."),
    "low_joules": _joules("Lower bound of energy_joules."),
    "high_joules": _joules("Upper bound of energy_joules."),
    "exclusive_low_joules": _joules("Lower bound of active_joules, whatever the policy."),
    "exclusive_high_joules": _joules("Upper bound of active_joules, whatever the policy."),
    "sensor_uncertainty_ratio": _real(None, "Systematic uncertainty of the sensor, as a ratio."),
    "joules_per_output_token": _real("J/token", "energy_joules over output_tokens."),
    "domains": _json("The energy in each power domain, by its name: an object of objects."),
    "policy": _text("How energy was divided among requests at the same time."),
    "policy_version": _small("The version of that policy."),
    "quality": _text("measured, interpolated, sub_sensor, gap, estimated or none."),
    "quality_reasons": _json("Why the quality is what it is: a list of words."),
    "sm_clock_mhz": _small("Clock of the GPU's processors.", "MHz"),
    "memory_clock_mhz": _small("Clock of the GPU's memory.", "MHz"),
    "power_limit_watts": _real("W", "The power limit that was set."),
    "gpu_temperature_celsius": _small("The hottest of its GPUs.", "degree Celsius"),
    "throttle_reasons": _json(
        "Why a GPU ran slower than it could: a list of words; empty: it did not."
    ),
}
"""Every field of EnergyRecord, in its order."""
