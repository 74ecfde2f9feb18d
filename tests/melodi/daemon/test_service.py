"""A finished request is billed for when it was in service, whoever tells when that was."""

from array import array

import pytest
from timelines import SECOND, SENT_NS, timeline

from melodi.daemon.service import service_of
from melodi.energy.bins import Interval
from melodi.energy.record import Status


def after_s(start: float, end: float) -> Interval:
    return Interval(SENT_NS + round(start * SECOND), SENT_NS + round(end * SECOND))


def test_ollama_is_served_in_the_last_stretch_that_it_worked() -> None:
    """Four clients and one slot: of 10 s only the 2 s at the end may be billed."""
    span = service_of(
        timeline(backend_kind="ollama", prefill_seconds=0.5, decode_seconds=1.5, queue_seconds=8.0)
    )
    assert span.service == after_s(8, 10)
    assert span.load is None


def arrivals_s(*seconds: float) -> "array[int]":
    return array("q", [SENT_NS + round(one * SECOND) for one in seconds])


def test_ollama_tells_when_the_first_token_of_a_whole_answer_was_made() -> None:
    """Decoding is the last 1.5 s, whoever saw it."""
    span = service_of(timeline(backend_kind="ollama", prefill_seconds=0.5, decode_seconds=1.5))
    assert span.first_token_ns == SENT_NS + round(8.5 * SECOND)


TOLD = {"queue_seconds": 4.0, "prefill_seconds": 0.5, "decode_seconds": 2.0}
TOKENS = {"input_tokens": 7, "output_tokens": 5}


def test_vllm_tells_when_a_whole_answer_was_made() -> None:
    """After its queue, and not as late as a busy server sent it."""
    span = service_of(timeline(**TOLD, **TOKENS))
    assert span.service == after_s(4, 6.5)
    assert span.first_token_ns == SENT_NS + round(4.5 * SECOND)


@pytest.mark.parametrize("kind", ["ollama", "vllm"])
def test_what_nobody_tells_of_was_the_way_and_the_service_may_lie_elsewhere(kind: str) -> None:
    """Of 10 s the backend tells of 6.5 s: by the other 3.5 s it may have been earlier or later."""
    told = service_of(timeline(backend_kind=kind, **TOLD, **TOKENS))
    assert told.late_ns == round(3.5 * SECOND)
    assert service_of(timeline(backend_kind=kind)).late_ns == 0


def test_a_stream_that_was_held_up_is_known_by_what_vllm_tells() -> None:
    """All of it came within a tenth of a second, after two seconds of decoding."""
    held = arrivals_s(9.9, 9.92, 9.95, 9.98, 10)
    span = service_of(timeline(**TOLD, **TOKENS, chunk_ns=held, first_token_ns=held[0]))
    assert span.service == after_s(4, 6.5)
    assert span.first_token_ns == SENT_NS + round(4.5 * SECOND)
    assert not span.work.is_seen


def test_a_stream_is_known_by_its_own_tokens() -> None:
    """It may lag a little: what is seen counts."""
    seen = arrivals_s(5, 6, 7, 8, 9)
    span = service_of(timeline(**TOLD, **TOKENS, chunk_ns=seen, first_token_ns=seen[0]))
    assert span.service == after_s(4, 10)
    assert span.first_token_ns == seen[0]
    assert span.work.is_seen


def test_an_answer_in_one_piece_shows_no_first_token() -> None:
    """A proxy collected it: when it came is not when its first token was made."""
    one = arrivals_s(10)
    span = service_of(timeline(**TOKENS, chunk_ns=one, first_token_ns=one[0]))
    assert span.first_token_ns is None
    lone = timeline(input_tokens=7, output_tokens=1, chunk_ns=one, first_token_ns=one[0])
    assert service_of(lone).first_token_ns == one[0]


def test_a_model_load_is_a_stretch_of_its_own() -> None:
    """Load comes first, and does not overlap the service."""
    span = service_of(
        timeline(backend_kind="ollama", load_seconds=3.0, prefill_seconds=1.0, decode_seconds=6.0)
    )
    assert span.load == after_s(0, 3)
    assert span.service == after_s(3, 10)


def test_a_few_milliseconds_of_load_are_no_load() -> None:
    """Ollama reports them for a warm model."""
    span = service_of(
        timeline(backend_kind="ollama", load_seconds=0.002, prefill_seconds=1.0, decode_seconds=8.0)
    )
    assert span.load is None


def test_queueing_that_the_backend_reports_is_no_service() -> None:
    """A queued request takes nothing."""
    assert service_of(timeline(queue_seconds=4.0)).service == after_s(4, 10)
    assert service_of(timeline()).service == after_s(0, 10)


def test_the_first_token_lies_within_the_service() -> None:
    """Clocks of two machines may disagree by a little."""
    span = service_of(timeline(queue_seconds=4.0, first_token_ns=SENT_NS + SECOND))
    assert span.first_token_ns == span.service.start_ns


@pytest.mark.parametrize(
    ("http_status", "reached", "served"),
    [(404, True, False), (None, False, False), (None, True, True), (500, True, True)],
)
def test_a_refused_request_was_not_served(
    http_status: int | None, reached: bool, served: bool
) -> None:
    """A wrong model name costs no joules; a crash or a time-out after the prompt was sent may."""
    one = timeline(status=Status.ERROR, http_status=http_status, reached=reached)
    assert (service_of(one) is not None) is served


def test_a_call_that_only_loads_a_model_is_a_load_and_no_service() -> None:
    """Its joules go to the load, and nobody is served."""
    span = service_of(timeline(load_only=True, finish_reason="load"))
    assert span.load == after_s(0, 10)
    assert span.service.length_ns == 0
    assert service_of(timeline(load_only=True, finish_reason="unload")) is None


def test_a_running_request_has_no_service_yet() -> None:
    """Asking too early is a mistake of the caller's."""
    with pytest.raises(ValueError, match="has not ended"):
        service_of(timeline(end_ns=None))
