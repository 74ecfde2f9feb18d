"""Begins timelines, and keeps a failing recorder from breaking traffic."""

import logging

from melodi.clock import Clock
from melodi.ids import new_id
from melodi.inference.backends.base import RequestFacts
from melodi.inference.request import Backend
from melodi.inference.timeline import Recorder, RequestTimeline
from melodi.inference.tls import distrust

logger = logging.getLogger(__name__)


class GuardedRecorder:
    """A recorder that never raises, whatever the one inside it does."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def begin(self, timeline: RequestTimeline) -> None:
        try:
            self._recorder.begin(timeline)
        except Exception:
            logger.exception("the begin of request %s was not recorded", timeline.id)

    def end(self, timeline: RequestTimeline) -> None:
        try:
            self._recorder.end(timeline)
        except Exception:
            logger.exception("the end of request %s was not recorded", timeline.id)


def new_timeline(backend: Backend, clock: Clock, *, facts: RequestFacts) -> RequestTimeline:
    """The timeline of a request that is sent now."""
    wall_ns = clock.wall_ns()
    return RequestTimeline(
        id=new_id(wall_ns),
        backend=backend.name,
        backend_kind=backend.kind.value,
        model=facts.model,
        wall_ns=wall_ns,
        sent_ns=clock.monotonic_ns(),
        streamed=facts.streamed,
        prompt=facts.prompt,
        generation=dict(facts.generation),
        load_only=facts.load_only,
    )


def unreachable(backend: Backend, error: BaseException | None = None) -> str:
    """What to tell a person to whose backend no connection could be made, because of `error`."""
    if (distrusted := distrust(backend, error)) is not None:
        return distrusted
    return f"backend {backend.name} at {backend.url} is not reachable: start it or mend its url"


def broken(backend: Backend, error: BaseException) -> str:
    """What to tell a person whose backend closed the connection before its answer was whole."""
    name = type(error).__name__
    return f"backend {backend.name} at {backend.url} broke off its answer ({name}): see its log"
