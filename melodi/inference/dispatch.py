"""Sends prompts to backends, and sees to it that each ends in exactly one timeline."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from melodi.clock import Clock
from melodi.inference.backends.base import Dialect, Ending, Progress, RequestFacts
from melodi.inference.backends.base import conversation_text as text_of
from melodi.inference.backends.ollama import model_name
from melodi.inference.clients import BackendClient, Refused, Unanswered, open_client
from melodi.inference.observer import dialect_of
from melodi.inference.recording import GuardedRecorder, new_timeline
from melodi.inference.request import Backend, BackendKind, PromptRequest
from melodi.inference.timeline import Recorder, RequestTimeline

OnDone = Callable[[PromptRequest, RequestTimeline], None]


class Dispatcher:
    """Holds one client per backend; close it, or use it as a context."""

    def __init__(self, recorder: Recorder, clock: Clock) -> None:
        self._recorder = GuardedRecorder(recorder)
        self._clock = clock
        self._clients: dict[Backend, BackendClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every client's connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def dispatch(self, request: PromptRequest) -> RequestTimeline:
        """Send one prompt and wait for its end; what fails is told in the timeline's error.

        Only a cancellation is raised, after the timeline has ended as cancelled.
        """
        timeline = new_timeline(request.backend, self._clock, facts=_facts(request))
        timeline.dispatched = True
        timeline.tags = _tags(request)
        timeline.campaign, timeline.task = request.campaign, request.task
        progress = Progress(timeline)
        self._recorder.begin(timeline)
        ending = Ending.LEFT
        try:
            await self._receive(request, progress)
            ending = Ending.CLEAN
        finally:
            progress.close(self._clock.monotonic_ns(), ending)
            self._recorder.end(timeline)
        return timeline

    async def dispatch_all(
        self, requests: Iterable[PromptRequest], *, concurrency: int, on_done: OnDone
    ) -> None:
        """Keep `concurrency` requests in flight until all are done; call `on_done` after each."""
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; give 1 or more")
        waiting = iter(requests)
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._drain(waiting, on_done))

    async def _drain(self, waiting: Iterator[PromptRequest], on_done: OnDone) -> None:
        for request in waiting:
            on_done(request, await self.dispatch(request))

    async def _receive(self, request: PromptRequest, progress: Progress) -> None:
        """Take the whole answer; one that broke off after it began is left without its end."""
        seconds = request.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._absorb_all(request, progress)
        except TimeoutError:
            progress.fail(f"no whole answer within {seconds} s: raise timeout_seconds")
        except Refused as error:
            progress.timeline.http_status = error.http_status or progress.timeline.http_status
            progress.fail(str(error))
        except Unanswered as error:
            if progress.timeline.http_status is None:
                progress.fail(str(error))
        except Exception as error:  # noqa: BLE001 - one failing request never ends the others
            progress.fail(f"{type(error).__name__}: {error}")

    async def _absorb_all(self, request: PromptRequest, progress: Progress) -> None:
        client = self._client(request.backend)
        absorb = _dialect(request).absorb

        def sent() -> None:
            progress.timeline.reached = True

        async with aclosing(client.stream(request, on_sent=sent)) as answer:
            async for part in answer:
                progress.timeline.http_status = 200
                absorb(progress, part, self._clock.monotonic_ns())

    def _client(self, backend: Backend) -> BackendClient:
        if backend not in self._clients:
            self._clients[backend] = open_client(backend)
        return self._clients[backend]


def _dialect(request: PromptRequest) -> Dialect:
    path = "/v1/chat/completions"
    if request.backend.kind is BackendKind.OLLAMA:
        path = "/api/chat" if request.messages else "/api/generate"
    dialect = dialect_of(request.backend.kind, path)
    assert dialect is not None
    return dialect


def _facts(request: PromptRequest) -> RequestFacts:
    is_ollama = request.backend.kind is BackendKind.OLLAMA
    prompt = request.prompt if request.prompt is not None else text_of(list(request.messages))
    return RequestFacts(
        model=model_name(request.model) if is_ollama else request.model,
        streamed=True,
        prompt=prompt,
        generation=dict(request.options),
    )


def _tags(request: PromptRequest) -> dict[str, str]:
    tags = dict(request.tags)
    if request.prompt_id is not None:
        tags["prompt_id"] = request.prompt_id
    return tags
