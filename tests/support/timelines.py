"""Timelines of requests that have ended."""

from melodi.energy.record import Status
from melodi.inference.timeline import RequestTimeline

SECOND = 1_000_000_000
SENT_NS = 100 * SECOND


def timeline(**more: object) -> RequestTimeline:
    """One that was sent at SENT_NS and served for ten seconds, unless told otherwise."""
    known: dict[str, object] = {
        "id": "a",
        "backend": "b",
        "backend_kind": "vllm",
        "wall_ns": 1_767_225_600 * SECOND,
        "sent_ns": SENT_NS,
        "end_ns": SENT_NS + 10 * SECOND,
        "status": Status.OK,
        "http_status": 200,
        "reached": True,
        "prompt": "why is the sky blue?",
        "response": "because",
    }
    return RequestTimeline(**(known | more))  # type: ignore[arg-type]
