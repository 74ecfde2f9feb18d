"""When a finished request was in service, by what its backend tells and what was seen."""

from dataclasses import dataclass

from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import Interval, Span
from melodi.energy.work import Work, are_shown
from melodi.inference.timeline import RequestTimeline

LOAD_FLOOR_NS = NS_PER_SECOND // 10
"""Ollama reports a few ms of load for a warm model: only longer ones are a load."""


def service_of(timeline: RequestTimeline) -> Span | None:
    """The stretch in which a finished request can have used energy; None: it was never served.

    Ollama tells how long it worked, so only that last stretch counts: before it the request
    waited for a slot or for the model. Elsewhere service begins after the queueing that the
    backend reports, or else when the request was sent. An answer that came whole, or later than
    it was made, has the phases that its backend tells. A request that was refused (HTTP 4xx), or
    never reached the backend, was not served.
    """
    end_ns = timeline.end_ns
    if end_ns is None:
        raise ValueError(f"request {timeline.id} has not ended; end its timeline first")
    if timeline.load_only:
        return _loaded(timeline, end_ns)
    http = timeline.http_status
    refused = http is not None and 400 <= http < 500
    if refused or not timeline.reached:
        return None
    phases = _phases(timeline, end_ns)
    start_ns = min(timeline.sent_ns + _waited_ns(timeline), end_ns)
    if phases is not None:
        start_ns = phases.start_ns
    first_ns = timeline.first_token_ns
    if first_ns is not None:
        first_ns = min(max(first_ns, start_ns), end_ns)
    load, late_ns = _load(timeline, start_ns), 0
    work = Work.of(
        input_tokens=timeline.input_tokens,
        cached_tokens=timeline.cached_input_tokens,
        output_tokens=timeline.output_tokens,
        arrivals_ns=timeline.chunk_ns,
    )
    if phases is not None and not are_shown(timeline.chunk_ns, made_in_ns=phases.decoding_ns):
        work = None if work is None else work.unseen
        first_ns, end_ns = phases.first_ns, phases.end_ns
        late_ns = phases.late_ns
    elif work is not None and not work.is_seen:
        # All of it came in one piece: that is when it was sent, not when it was made.
        first_ns = None
    service, model = Interval(start_ns, end_ns), timeline.model or ""
    return Span(timeline.id, service, first_ns, load, work, timeline.backend, model, late_ns)


def _loaded(timeline: RequestTimeline, end_ns: int) -> Span | None:
    """What a call that only loads a model took; None where there was nothing to load."""
    loading = Interval(timeline.sent_ns, end_ns)
    if timeline.finish_reason != "load" or loading.length_ns < LOAD_FLOOR_NS:
        return None
    nothing, model = Interval(end_ns, end_ns), timeline.model or ""
    return Span(timeline.id, nothing, load=loading, backend=timeline.backend, model=model)


def _load(timeline: RequestTimeline, start_ns: int) -> Interval | None:
    """The load that a request waited for before its service; None: its model was loaded."""
    load_ns = _ns(timeline.load_seconds)
    if load_ns is None or load_ns < LOAD_FLOOR_NS:
        return None
    return Interval(timeline.sent_ns, min(timeline.sent_ns + load_ns, start_ns))


@dataclass(frozen=True, slots=True)
class _Phases:
    """When a request was served, by what its backend tells."""

    start_ns: int
    first_ns: int
    """When its first token was made."""
    end_ns: int
    late_ns: int
    """How long it was on the way, there and back: what it took beyond what the backend tells."""

    @property
    def decoding_ns(self) -> int:
        return self.end_ns - self.first_ns


def _phases(timeline: RequestTimeline, end_ns: int) -> _Phases | None:
    """None where the backend does not tell them all.

    Ollama's end with the answer. vLLM's begin with its queue: a busy server is late with answers.
    """
    prefill_ns, decode_ns = _ns(timeline.prefill_seconds), _ns(timeline.decode_seconds)
    if prefill_ns is None or decode_ns is None:
        return None
    told_ns = _waited_ns(timeline) + prefill_ns + decode_ns
    late_ns = max(0, end_ns - timeline.sent_ns - told_ns)
    if timeline.backend_kind == "ollama":
        start_ns = max(timeline.sent_ns, end_ns - prefill_ns - decode_ns)
        return _Phases(start_ns, max(start_ns, end_ns - decode_ns), end_ns, late_ns)
    if timeline.queue_seconds is None:
        return None
    start_ns = min(timeline.sent_ns + _waited_ns(timeline), end_ns)
    first_ns = min(start_ns + prefill_ns, end_ns)
    return _Phases(start_ns, first_ns, min(first_ns + decode_ns, end_ns), late_ns)


def _waited_ns(timeline: RequestTimeline) -> int:
    return (_ns(timeline.queue_seconds) or 0) + (_ns(timeline.load_seconds) or 0)


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * NS_PER_SECOND)
