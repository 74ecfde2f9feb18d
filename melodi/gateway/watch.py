"""The record of one request that passes the gateway: begins once, ends once, whatever happens."""

import asyncio
from types import TracebackType
from typing import Self

from melodi.clock import Clock
from melodi.gateway.headers import REQUEST_ID, Headers
from melodi.gateway.inbound import ClientLeft
from melodi.inference.backends.base import Dialect, Ending
from melodi.inference.observer import Observer
from melodi.inference.timeline import Recorder, RequestTimeline


class Watch:
    """A context around one exchange: how the context is left tells how the request ended."""

    def __init__(
        self, timeline: RequestTimeline, *, dialect: Dialect, recorder: Recorder, clock: Clock
    ) -> None:
        self._timeline = timeline
        self._observer = Observer(timeline, dialect)
        self._recorder = recorder
        self._clock = clock
        self._ended = False
        self._taken_ns = timeline.sent_ns
        self._sent_after_ns = 0

    def __enter__(self) -> Self:
        self._recorder.begin(self._timeline)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            ending = Ending.CLEAN
        elif isinstance(error, asyncio.CancelledError | ClientLeft):
            ending = Ending.LEFT
        else:
            ending = Ending.CUT
        self.end(self._clock.monotonic_ns(), ending)

    @property
    def headers(self) -> Headers:
        """What the answer says of its record; a call that only loads a model has none."""
        if self._timeline.load_only:
            return []
        return [(REQUEST_ID, self._timeline.id.encode())]

    def head(self, status: int, headers: Headers) -> None:
        """The head of the answer has come."""
        self._observer.head(status, headers)

    def feed(self, data: bytes, at_ns: int) -> None:
        """Bytes of the answer came at `at_ns`."""
        self._observer.feed(data, at_ns)

    def taken(self, at_ns: int) -> None:
        """The request had come whole at `at_ns`."""
        self._taken_ns = at_ns

    def sent(self) -> None:
        """The request has been written to the backend."""
        self._timeline.reached = True
        self._sent_after_ns = self._clock.monotonic_ns() - self._taken_ns

    def passed(self, at_ns: int) -> None:
        """The head of the answer, which had come at `at_ns`, has been sent on."""
        passed_after_ns = self._clock.monotonic_ns() - at_ns
        self._timeline.overhead_ns = self._sent_after_ns + passed_after_ns

    def fail(self, message: str, *, reached: bool) -> None:
        """The backend gave no answer; `reached`: although the request had been sent."""
        self._timeline.reached = reached
        self._observer.fail(message)

    def end(self, at_ns: int, ending: Ending) -> None:
        """The answer ended; only the first call counts."""
        if not self._ended:
            self._ended = True
            self._observer.end(at_ns, ending)
            self._recorder.end(self._timeline)


class Unwatched:
    """A request that leaves no record."""

    @property
    def headers(self) -> Headers:
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *leaving: object) -> None:
        pass

    def head(self, status: int, headers: Headers) -> None:
        pass

    def feed(self, data: bytes, at_ns: int) -> None:
        pass

    def taken(self, at_ns: int) -> None:
        pass

    def sent(self) -> None:
        pass

    def passed(self, at_ns: int) -> None:
        pass

    def fail(self, message: str, *, reached: bool) -> None:
        pass

    def end(self, at_ns: int, ending: Ending) -> None:
        pass
