"""Joins what was seen of a request with what it cost into its record."""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from collectors.base import Conditions
from melodi.clock import NS_PER_SECOND, to_datetime
from melodi.energy.record import EnergyRecord, Quality, Status
from melodi.energy.total import RequestEnergy, costs
from melodi.inference.timeline import RequestTimeline
from melodi.store.spool import Begun

GPU_IDLE = "gpu_idle_during_decode"
IDLE_PART = 0.1
"""A GPU that draws no more than this above its idle power, as a part of it, decodes nothing."""


@dataclass(frozen=True, slots=True)
class Privacy:
    """What is kept of a prompt and its response."""

    prompts: str
    """`hash`, `text` or `none`."""
    key: bytes
    """This installation's secret, so that hashes of passing traffic cannot be guessed back."""


def begun(timeline: RequestTimeline, *, host: str) -> Begun:
    """The begin line of a request."""
    return Begun(
        id=timeline.id,
        host=host,
        backend=timeline.backend,
        backend_kind=timeline.backend_kind,
        model=clean(timeline.model),
        campaign=clean(timeline.campaign),
        task=clean(timeline.task),
        tags=clean(dict(timeline.tags)),
        streamed=timeline.streamed,
        attempt=timeline.attempt,
        wall_ns=timeline.wall_ns,
        scheduled_wall_ns=timeline.scheduled_wall_ns,
    )


def describe(timeline: RequestTimeline, *, host: str, privacy: Privacy) -> EnergyRecord:
    """A request's record before its energy is known."""
    prompt_hash, prompt, response = _private(timeline, privacy)
    end_ns, first_ns, sent_ns = timeline.end_ns, timeline.first_token_ns, timeline.sent_ns
    tokens = timeline.output_tokens
    decode = None if end_ns is None or first_ns is None else _seconds(end_ns - first_ns)
    return EnergyRecord(
        id=timeline.id,
        host=host,
        backend=timeline.backend,
        backend_kind=timeline.backend_kind,
        backend_version=clean(timeline.backend_version),
        model=clean(timeline.model),
        model_digest=clean(timeline.model_digest),
        campaign=clean(timeline.campaign),
        task=clean(timeline.task),
        tags=clean(timeline.tags),
        prompt_hash=prompt_hash,
        prompt=clean(prompt),
        response=clean(response),
        generation=clean(timeline.generation),
        streamed=timeline.streamed,
        status=timeline.status or Status.INCOMPLETE,
        finish_reason=clean(timeline.finish_reason),
        attempt=timeline.attempt,
        error=clean(timeline.error),
        http_status=timeline.http_status,
        scheduled_at=_when(timeline.scheduled_wall_ns),
        started_at=to_datetime(timeline.wall_ns),
        duration_seconds=None if end_ns is None else _seconds(end_ns - sent_ns),
        time_to_first_token_seconds=None if first_ns is None else _seconds(first_ns - sent_ns),
        time_per_output_token_seconds=(
            decode / (tokens - 1) if decode is not None and tokens and tokens > 1 else None
        ),
        queue_seconds=timeline.queue_seconds,
        load_seconds=timeline.load_seconds,
        prefill_seconds=timeline.prefill_seconds,
        # What was seen, where the backend does not tell its own.
        decode_seconds=decode if timeline.decode_seconds is None else timeline.decode_seconds,
        input_tokens=timeline.input_tokens,
        output_tokens=tokens,
        cached_input_tokens=timeline.cached_input_tokens,
        tokens_source=timeline.tokens_source,
    )


def with_energy(
    record: EnergyRecord,
    energy: RequestEnergy,
    *,
    provisional: bool,
    conditions: Mapping[str, Conditions],
    doubts: Iterable[str] = (),
) -> EnergyRecord:
    """Fill the record that `describe` gave with its energy, and give it back.

    `conditions` are those of its devices while it ran, `doubts` reasons beside those that the
    energy itself has.
    """
    if energy.domains:
        found = {*energy.quality_reasons, *doubts}
        if _is_idle_in_decode(record, energy):
            found.add(GPU_IDLE)
        if len(found) > len(energy.quality_reasons):
            energy = replace(energy, quality_reasons=tuple(sorted(found)))
    record.provisional = provisional
    known = [conditions[name] for name in energy.domains if name in conditions]
    for told in (costs(energy, record.output_tokens), _hardware(known)):
        for name, value in told.items():
            setattr(record, name, value)
    return record


def _is_idle_in_decode(record: EnergyRecord, energy: RequestEnergy) -> bool:
    """Whether tokens came while every GPU stayed idle: the model then ran where nothing measures.

    Its own active power times the requests beside it stands for the GPU's; shorter requests than
    the sensor can tell say nothing.
    """
    gpus = [one for name, one in energy.domains.items() if name.startswith("gpu:")]
    seconds = record.duration_seconds
    if not gpus or energy.cpu_joules is not None or not record.output_tokens or not seconds:
        return False
    company = energy.concurrency_mean or 1.0
    return all(
        one.active_joules is not None
        and one.idle_watts is not None
        and one.quality in (Quality.MEASURED, Quality.INTERPOLATED)
        and one.active_joules * company / seconds < IDLE_PART * one.idle_watts
        for one in gpus
    )


def clean(value: Any) -> Any:
    """The same value with text that every database can hold: no NUL, no lone surrogates.

    What cannot be held becomes U+FFFD, as a reader of broken text sees it.
    """
    if not value:
        return value
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return (
            value.encode("utf-16", "surrogatepass")
            .decode("utf-16", "replace")
            .replace("\0", "\ufffd")
        )
    if isinstance(value, dict):
        return {clean(key): clean(one) for key, one in value.items()}
    if isinstance(value, list):
        return [clean(one) for one in value]
    return value


def _private(
    timeline: RequestTimeline, privacy: Privacy
) -> tuple[str | None, str | None, str | None]:
    """The prompt's hash, prompt and response, as far as they may be kept; a campaign's text is
    its owner's own."""
    own = timeline.dispatched and timeline.campaign is not None
    text = timeline.prompt
    digest = None
    if text is not None and (own or privacy.prompts != "none"):
        data = text.encode("utf-8", "surrogatepass")
        digest = (
            hashlib.sha256(data) if own else hmac.new(privacy.key, data, hashlib.sha256)
        ).hexdigest()
    if own or privacy.prompts == "text":
        return digest, text, timeline.response
    return digest, None, None


def _hardware(devices: list[Conditions]) -> dict[str, Any]:
    """The state of the devices: the one value where they agree, None where they do not."""
    if not devices:
        return {}

    def agreed(pick: Callable[[Conditions], object]) -> object:
        values = {pick(one) for one in devices}
        return values.pop() if len(values) == 1 else None

    return {
        "sm_clock_mhz": agreed(lambda one: one.sm_clock_mhz),
        "memory_clock_mhz": agreed(lambda one: one.memory_clock_mhz),
        "power_limit_watts": agreed(lambda one: one.power_limit_watts),
        "gpu_temperature_celsius": max(
            (one.temperature_celsius for one in devices if one.temperature_celsius is not None),
            default=None,
        ),
        "throttle_reasons": _throttle_reasons(devices),
    }


def _throttle_reasons(devices: list[Conditions]) -> tuple[str, ...] | None:
    """Those of any device; None where none is known and one does not tell."""
    told = [one.throttle_reasons for one in devices]
    words = {word for reasons in told for word in reasons or ()}
    return None if None in told and not words else tuple(sorted(words))


def _seconds(ns: int) -> float:
    return ns / NS_PER_SECOND


def _when(wall_ns: int | None) -> datetime | None:
    return None if wall_ns is None else to_datetime(wall_ns)
