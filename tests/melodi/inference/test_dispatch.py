"""Every prompt that is sent ends in one timeline, whatever the backend does."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from scripted_server import (
    CUT,
    BrokenRecorder,
    MemoryRecorder,
    SeenRequest,
    Step,
    chunk,
    response,
    scripted,
    stream_head,
)

from melodi.clock import SystemClock
from melodi.energy.record import Status
from melodi.inference.dispatch import Dispatcher
from melodi.inference.request import Backend, BackendKind, PromptRequest
from melodi.inference.timeline import RequestTimeline

WIRE = Path(__file__).parent / "wire"
KINDS = list(BackendKind)


def whole(kind: BackendKind) -> list[Step]:
    """A recorded stream of a backend of this kind."""
    ollama = kind is BackendKind.OLLAMA
    name = "ollama_generate.ndjson" if ollama else "vllm_chat.sse"
    content_type = "application/x-ndjson" if ollama else "text/event-stream"
    data = (WIRE / name).read_bytes().splitlines(keepends=True)
    return [stream_head(content_type), *map(chunk, data), chunk(b"")]


def request_to(url: str, kind: BackendKind, **more: object) -> PromptRequest:
    """A prompt for a backend at `url`."""
    backend = Backend(name="b", kind=kind, url=url)
    return PromptRequest(backend=backend, **({"model": "tiny", "prompt": "hi"} | more))  # type: ignore[arg-type]


async def dispatch(
    answer: object, kind: BackendKind, **more: object
) -> tuple[RequestTimeline, list[SeenRequest]]:
    """The timeline of one prompt, and what the backend saw."""
    recorder = MemoryRecorder()
    async with scripted(answer) as backend:  # type: ignore[arg-type]
        async with Dispatcher(recorder, SystemClock()) as dispatcher:
            timeline = await dispatcher.dispatch(request_to(backend.url, kind, **more))
        await backend.all_closed()
    assert recorder.begun == recorder.ended == [timeline]
    return timeline, backend.requests


def body_of(request: SeenRequest) -> Mapping[str, object]:
    """The JSON that was sent."""
    return json.loads(request.body)  # type: ignore[no-any-return]


async def test_ollama_is_asked_natively_and_read_to_the_end() -> None:
    """max_tokens becomes num_predict; counts and durations come from its last line."""
    seen, asked = await dispatch(
        whole(BackendKind.OLLAMA),
        BackendKind.OLLAMA,
        model="tiny:latest",
        options={"max_tokens": 3, "temperature": 0.0, "seed": 1, "keep_alive": "5m"},
        tags={"a": "b"},
        campaign="c",
        task="t",
        prompt_id="p1",
    )
    body = body_of(asked[0])
    assert asked[0].line == b"POST /api/generate HTTP/1.1"
    assert body["options"] == {"num_predict": 3, "temperature": 0.0, "seed": 1}
    assert (body["prompt"], body["stream"], body["keep_alive"]) == ("hi", True, "5m")
    assert (seen.status, seen.response, seen.model) == (Status.OK, "…", "tiny")
    assert (seen.input_tokens, seen.output_tokens, seen.tokens_source) == (6, 3, "native")
    assert (seen.prefill_seconds, seen.http_status) == (0.005371, 200)
    assert (seen.tags, seen.campaign, seen.task) == ({"a": "b", "prompt_id": "p1"}, "c", "t")
    assert seen.first_token_ns is not None
    assert seen.end_ns is not None
    assert seen.sent_ns < seen.first_token_ns <= seen.end_ns


async def test_a_conversation_goes_to_ollamas_chat() -> None:
    """Messages are sent as messages; their text is the record's prompt."""
    line = b'{"model":"m","message":{"role":"assistant","content":"yo"},"done":true,"eval_count":1}'
    steps = [stream_head("application/x-ndjson"), chunk(line + b"\n"), chunk(b"")]
    turns = ({"role": "user", "content": "hi"},)
    seen, asked = await dispatch(steps, BackendKind.OLLAMA, prompt=None, messages=turns)
    assert asked[0].line == b"POST /api/chat HTTP/1.1"
    assert (seen.prompt, seen.response) == ("hi", "yo")


async def test_vllm_is_asked_for_usage_and_max_tokens() -> None:
    """The stream's usage and the engine's metrics are in the timeline."""
    seen, asked = await dispatch(
        whole(BackendKind.VLLM), BackendKind.VLLM, options={"max_tokens": 6, "ignore_eos": True}
    )
    body = body_of(asked[0])
    assert asked[0].line == b"POST /v1/chat/completions HTTP/1.1"
    assert body["stream_options"] == {"include_usage": True}
    assert (body["max_tokens"], body["ignore_eos"]) == (6, True)
    assert "max_completion_tokens" not in body
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert (seen.status, seen.response, seen.output_tokens) == (Status.OK, "Héllo", 6)
    assert (seen.cached_input_tokens, seen.decode_seconds) == (4, 0.0351)
    assert (len(seen.chunk_ns), seen.finish_reason) == (2, "length")


async def test_a_server_that_refuses_stream_options_is_asked_without() -> None:
    """Once refused, the field is left out from then on; it is one request with one record."""

    def answer(request: SeenRequest) -> Sequence[Step]:
        if b"stream_options" in request.body:
            error = b'{"detail":"Unexpected fields in the request: {\'stream_options\'}"}'
            return [response(error, status="422 Unprocessable Entity")]
        return whole(BackendKind.OPENAI)

    recorder = MemoryRecorder()
    async with (
        scripted(answer) as backend,
        Dispatcher(recorder, SystemClock()) as dispatcher,
    ):
        request = request_to(backend.url, BackendKind.OPENAI)
        first = await dispatcher.dispatch(request)
        second = await dispatcher.dispatch(request)
        asked = ["stream_options" in body_of(seen) for seen in backend.requests]
    assert (first.status, second.status) == (Status.OK, Status.OK)
    assert asked == [True, False, False]
    assert len(recorder.ended) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_backend_that_is_away_is_an_error_that_says_what_to_do(kind: BackendKind) -> None:
    """No exception: a timeline with the backend's name, its url and the remedy."""
    async with scripted([CUT]) as gone:
        pass
    recorder = MemoryRecorder()
    async with Dispatcher(recorder, SystemClock()) as dispatcher:
        seen = await dispatcher.dispatch(request_to(gone.url, kind))
    assert seen.status is Status.ERROR
    assert seen.error == f"backend b at {gone.url} is not reachable: start it or mend its url"
    assert (seen.http_status, seen.reached) == (None, False)
    assert recorder.ended == [seen]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_keeps_the_backends_words(kind: BackendKind) -> None:
    """HTTP status and message, in the shape of that backend's errors."""
    ollama = kind is BackendKind.OLLAMA
    body = b'{"error":"model \'x\' not found"}'
    if not ollama:
        body = b'{"error":{"message":"model \'x\' not found","type":"NotFoundError","code":404}}'
    seen, asked = await dispatch([response(body, status="404 Not Found")], kind)
    assert (seen.status, seen.http_status) == (Status.ERROR, 404)
    assert seen.error == "model 'x' not found"
    assert len(asked) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_amid_the_stream_is_an_error(kind: BackendKind) -> None:
    """HTTP 200 had been said already; what came before stays."""
    head, *rest = whole(kind)
    first = rest[:1] if kind is BackendKind.OLLAMA else rest[:6]
    error = b'{"error":"runner died"}\n'
    if kind is not BackendKind.OLLAMA:
        error = b'data: {"error":{"message":"runner died"}}\n\n'
    seen, _ = await dispatch([head, *first, chunk(error), chunk(b"")], kind)
    assert (seen.status, seen.error) == (Status.ERROR, "runner died")
    assert seen.response


@pytest.mark.parametrize("ending", [CUT, chunk(b"")], ids=["cut", "clean"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_without_its_last_word_is_incomplete(
    kind: BackendKind, ending: Step
) -> None:
    """Cut off or ended cleanly, the backend never said that this was all."""
    head, *rest = whole(kind)
    first = rest[:1] if kind is BackendKind.OLLAMA else rest[:6]
    seen, _ = await dispatch([head, *first, ending], kind)
    assert (seen.status, seen.http_status) == (Status.INCOMPLETE, 200)
    assert seen.output_tokens is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_gives_nothing_is_an_error(kind: BackendKind) -> None:
    """Accepted, then dropped: the backend broke off."""
    seen, asked = await dispatch([CUT], kind)
    assert seen.status is Status.ERROR
    assert "broke off" in (seen.error or "")
    assert seen.reached
    assert len(asked) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_timeout_is_an_error_and_frees_the_backend(kind: BackendKind) -> None:
    """The message names the limit; the connection closes."""
    seen, _ = await dispatch([asyncio.Event()], kind, timeout_seconds=0.5)
    assert seen.status is Status.ERROR
    assert seen.error == "no whole answer within 0.5 s: raise timeout_seconds"
    assert seen.reached


@pytest.mark.parametrize("kind", KINDS)
async def test_what_never_left_did_not_reach_the_backend(kind: BackendKind) -> None:
    """A timeout while the connection is being made costs the backend nothing."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with contextlib.ExitStack() as stack:
            # Once the queue of a listener that accepts nobody is full, who comes next waits.
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            request = request_to(f"http://127.0.0.1:{port}", kind, timeout_seconds=0.2)
            async with Dispatcher(MemoryRecorder(), SystemClock()) as dispatcher:
                seen = await dispatcher.dispatch(request)
    assert "0.2 s" in (seen.error or "")
    assert not seen.reached


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_task_ends_its_timeline_as_cancelled(kind: BackendKind) -> None:
    """The cancellation goes on, the timeline is recorded, the backend is freed."""
    recorder = MemoryRecorder()
    head, *rest = whole(kind)
    async with scripted([head, rest[0], asyncio.Event()]) as backend:
        async with Dispatcher(recorder, SystemClock()) as dispatcher:
            task = asyncio.create_task(dispatcher.dispatch(request_to(backend.url, kind)))
            await backend.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await backend.all_closed()
    assert [timeline.status for timeline in recorder.ended] == [Status.CANCELLED]
    assert recorder.ended[0].reached
    assert recorder.ended[0].dispatched


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_that_quotes_the_prompt_is_kept_without_it(kind: BackendKind) -> None:
    """Validators repeat their input: location, message and type stay, the prompt does not."""
    finding = {"type": "missing", "loc": ["body", "model"], "msg": "Field required"}
    body = json.dumps({"detail": [finding | {"input": {"prompt": "a secret"}}]}).encode()
    seen, _ = await dispatch([response(body, status="422 Unprocessable Entity")], kind)
    assert seen.error == "body.model: Field required (missing)"
    assert seen.http_status == 422


@pytest.mark.parametrize("kind", [BackendKind.VLLM, BackendKind.OPENAI])
async def test_a_refusal_that_is_not_understood_tells_its_status(kind: BackendKind) -> None:
    """An answer of no known shape may hold anything, a prompt too."""
    answer = [response(b'{"you sent": "a secret"}', status="400 Bad Request")]
    seen, _ = await dispatch(answer, kind)
    assert seen.error == "the backend answered with HTTP status 400"


async def test_as_many_are_in_flight_as_asked_and_one_failure_ends_no_other() -> None:
    """Three at a time: the fourth is not sent before one of them is done."""
    go_on = asyncio.Event()
    waiting = 0
    most = 0

    def answer(request: SeenRequest) -> Sequence[Step]:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        if waiting == 3:
            go_on.set()
        return [go_on, *steps(request)]

    def steps(request: SeenRequest) -> Sequence[Step]:
        if body_of(request)["prompt"] == "2":
            return [CUT]
        return whole(BackendKind.OLLAMA)

    def on_done(request: PromptRequest, timeline: RequestTimeline) -> None:
        nonlocal waiting
        waiting -= 1
        done.append((request.prompt, timeline.status))

    done: list[tuple[str | None, Status | None]] = []
    async with (
        scripted(answer) as backend,
        Dispatcher(MemoryRecorder(), SystemClock()) as dispatcher,
    ):
        requests = [
            request_to(backend.url, BackendKind.OLLAMA, prompt=str(number)) for number in range(9)
        ]
        await dispatcher.dispatch_all(requests, concurrency=3, on_done=on_done)
    assert most == 3
    assert sorted(done) == [
        (str(number), Status.ERROR if number == 2 else Status.OK) for number in range(9)
    ]


async def test_a_recorder_that_raises_breaks_no_request() -> None:
    """Measuring may fail; inference goes on."""

    async with (
        scripted(whole(BackendKind.OLLAMA)) as backend,
        Dispatcher(BrokenRecorder(), SystemClock()) as dispatcher,
    ):
        seen = await dispatcher.dispatch(request_to(backend.url, BackendKind.OLLAMA))
    assert seen.status is Status.OK


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_cannot_be_made_is_an_error_of_its_request(kind: BackendKind) -> None:
    """No client takes a url this long: the request is recorded as failed, and nothing is raised."""
    recorder = MemoryRecorder()
    async with Dispatcher(recorder, SystemClock()) as dispatcher:
        seen = await dispatcher.dispatch(request_to("http://h/" + "x" * 70_000, kind))
    assert seen.status is Status.ERROR
    assert "InvalidURL" in (seen.error or "")
    assert recorder.ended == [seen]
