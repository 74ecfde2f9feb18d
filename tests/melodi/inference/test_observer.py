"""What is written down of a response that goes by, for each backend's way of speaking."""

import gzip
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.record import Status
from melodi.inference.backends.base import Dialect, Ending, Progress, RequestFacts
from melodi.inference.observer import DIALECTS, Observer, dialect_of
from melodi.inference.timeline import RequestTimeline

WIRE = Path(__file__).parent / "wire"
NDJSON, SSE, JSON = "application/x-ndjson", "text/event-stream; charset=utf-8", "application/json"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    *("choices", "delta", "message", "content", "usage", "prompt_tokens", "error"),
                    *("response", "done", "type", "metrics", "total_duration", "eval_count"),
                    *("finish_reason", "tool_calls", "text", "index", "completion_tokens", "role"),
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def observe(
    kind: str,
    path: str,
    content_type: str,
    pieces: list[bytes],
    *,
    status: int = 200,
    encoding: str | None = None,
    ending: Ending = Ending.CLEAN,
) -> RequestTimeline:
    """The timeline of one response whose pieces come at 1, 2, 3, ... ns."""
    timeline = RequestTimeline(id="r", backend="b", backend_kind=kind, wall_ns=0, sent_ns=0)
    dialect = dialect_of(kind, path)
    assert dialect is not None
    observer = Observer(timeline, dialect)
    headers = [(b"Content-Type", content_type.encode())]
    if encoding is not None:
        headers.append((b"Content-Encoding", encoding.encode()))
    observer.head(status, headers)
    for at_ns, piece in enumerate(pieces, start=1):
        observer.feed(piece, at_ns)
    observer.end(len(pieces) + 1, ending)
    return timeline


def lines(name: str) -> list[bytes]:
    """A recorded body, line by line."""
    return (WIRE / name).read_bytes().splitlines(keepends=True)


def test_ollamas_last_line_tells_tokens_durations_and_queueing() -> None:
    """Its times go apart into load, prefill and decode; what is left of the total is queueing."""
    seen = observe("ollama", "/api/generate", NDJSON, lines("ollama_generate.ndjson"))
    assert seen.status is Status.OK
    assert (seen.input_tokens, seen.output_tokens, seen.tokens_source) == (6, 3, "native")
    assert (seen.load_seconds, seen.prefill_seconds, seen.decode_seconds) == (
        0.00101413,
        0.005371,
        0.000537,
    )
    assert seen.queue_seconds == pytest.approx(8.229873e-3 - 1.01413e-3 - 5.371e-3 - 0.537e-3)
    assert (seen.response, seen.finish_reason, seen.streamed) == ("…", "length", True)
    assert (list(seen.chunk_ns), seen.first_token_ns, seen.end_ns) == ([1], 1, 3)


def test_ollamas_queueing_is_the_bulk_of_a_request_that_waited() -> None:
    """1487 ms of which 1437 were spent behind another request."""
    last = {"done": True, "total_duration": 1_487_000_000, "load_duration": 1_100_000}
    last |= {"prompt_eval_duration": 500_000, "eval_duration": 48_000_000}
    seen = observe("ollama", "/api/generate", JSON, [json.dumps(last).encode()])
    assert seen.queue_seconds == pytest.approx(1.4374)


def test_durations_that_ollama_leaves_out_are_unknown() -> None:
    """A field that is 0 is absent on the wire: nothing is made of it, queueing least of all."""
    body = b'{"done":true,"done_reason":"stop","total_duration":9,"eval_count":2}'
    seen = observe("ollama", "/api/chat", JSON, [body])
    assert (seen.prefill_seconds, seen.queue_seconds, seen.input_tokens) == (None, None, None)
    assert seen.output_tokens == 2


@pytest.mark.parametrize(("told", "kept"), [(2**53 - 1, 2**53 - 1), (2**53, None), (2**70, None)])
def test_a_count_that_nothing_can_hold_is_unknown(told: int, kept: int | None) -> None:
    """A backend that says it has read so many tokens costs the record that number alone."""
    body = b'{"done":true,"total_duration":1,"prompt_eval_count":%d,"eval_count":3}\n' % told
    seen = observe("ollama", "/api/generate", JSON, [body])
    assert (seen.input_tokens, seen.output_tokens) == (kept, 3)


def test_an_embedding_has_input_tokens_and_no_output() -> None:
    """Ollama's embeddings say what went in and how long it took; their end is the object's."""
    body = b'{"embeddings":[[0.1]],"total_duration":9,"load_duration":2,"prompt_eval_count":4}'
    seen = observe("ollama", "/api/embed", JSON, [body])
    assert (seen.status, seen.input_tokens, seen.output_tokens) == (Status.OK, 4, None)
    assert seen.queue_seconds is None


def test_a_runner_that_dies_mid_stream_is_an_error_with_its_text() -> None:
    """The error line comes under HTTP 200; what was generated stays."""
    seen = observe("ollama", "/api/generate", NDJSON, lines("ollama_runner_killed.ndjson"))
    assert (seen.status, seen.http_status) == (Status.ERROR, 200)
    assert seen.error == "an error was encountered while running the model: unexpected EOF"
    assert (seen.response, seen.output_tokens) == ("abcde", None)


@pytest.mark.parametrize(
    ("kind", "path", "file", "status", "message"),
    [
        (
            "ollama",
            "/api/generate",
            "ollama_wrong_option.json",
            500,
            'option "num_predict" must be of type integer',
        ),
        (
            "vllm",
            "/v1/completions",
            "vllm_wrong_model.json",
            404,
            "The model `other` does not exist.",
        ),
    ],
)
def test_a_refusal_keeps_its_message(
    kind: str, path: str, file: str, status: int, message: str
) -> None:
    """HTTP 400 and above: an error with the backend's own words."""
    seen = observe(kind, path, JSON, lines(file), status=status)
    assert (seen.status, seen.http_status, seen.error) == (Status.ERROR, status, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"object":"error","message":"too long","code":400}', "too long"),
        (b'{"detail":[{"msg":"field required","input":"a secret"}]}', "field required"),
        (b"you sent: a secret", "the backend answered with HTTP status 400"),
        (b'{"prompt":"a secret"}', "the backend answered with HTTP status 400"),
        (b'{"error":{"input":"a secret"}}', "unnamed error"),
        (b"", "the backend answered with HTTP status 400"),
    ],
)
def test_every_shape_of_refusal_is_understood(body: bytes, message: str) -> None:
    """A string, an object, findings; never what they quote, nor a body of no known shape."""
    seen = observe("openai", "/v1/completions", "text/plain", [body], status=400)
    assert seen.error == message


def test_vllms_answer_tells_tokens_cache_and_the_engines_times() -> None:
    """Usage counts tokens, metrics tell queueing, prefill and decode."""
    seen = observe("vllm", "/v1/chat/completions", JSON, lines("vllm_chat.json"))
    assert (seen.status, seen.streamed, seen.finish_reason) == (Status.OK, False, "length")
    assert (seen.input_tokens, seen.output_tokens, seen.cached_input_tokens) == (7, 6, 0)
    assert (seen.queue_seconds, seen.prefill_seconds) == (0.00004, 0.0255)
    assert (seen.decode_seconds, seen.backend_id) == (0.0351, "chatcmpl-my-req-1")
    assert (len(seen.chunk_ns), seen.first_token_ns) == (0, None)


def test_a_stream_of_vllm_is_read_to_its_usage() -> None:
    """The role's chunk carries no text: the first token is the first text, chunks are no tokens."""
    pieces = lines("vllm_chat.sse")
    seen = observe("vllm", "/v1/chat/completions", SSE, pieces)
    assert (seen.status, seen.response, seen.tokens_source) == (Status.OK, "Héllo", "usage")
    assert (seen.input_tokens, seen.output_tokens, seen.cached_input_tokens) == (7, 6, 4)
    assert len(seen.chunk_ns) == 2
    assert seen.first_token_ns == seen.chunk_ns[0] == 6


@pytest.mark.parametrize(
    ("file", "path", "tokens"),
    [("messages.sse", "/v1/messages", (11, 5, 2)), ("responses.sse", "/v1/responses", (8, 2, 3))],
)
def test_typed_events_are_read_to_their_usage(
    file: str, path: str, tokens: tuple[int, int, int]
) -> None:
    """Anthropic's and OpenAI's typed streams give text, tokens and a clean end."""
    seen = observe("vllm", path, SSE, lines(file))
    assert (seen.status, seen.response, len(seen.chunk_ns)) == (Status.OK, "Hi", 1)
    assert (seen.input_tokens, seen.output_tokens, seen.cached_input_tokens) == tokens


@pytest.mark.parametrize(
    ("kind", "path", "content_type", "file"),
    [
        ("ollama", "/api/generate", NDJSON, "ollama_generate.ndjson"),
        ("ollama", "/api/generate", NDJSON, "ollama_runner_killed.ndjson"),
        ("vllm", "/v1/chat/completions", SSE, "vllm_chat.sse"),
        ("vllm", "/v1/chat/completions", JSON, "vllm_chat.json"),
        ("vllm", "/v1/messages", SSE, "messages.sse"),
        ("openai", "/v1/responses", SSE, "responses.sse"),
    ],
)
@given(step=st.integers(1, 200))
def test_records_do_not_depend_on_how_the_network_cut_the_bytes(
    kind: str, path: str, content_type: str, file: str, step: int
) -> None:
    """All but the times is the same in one piece and in pieces of any size."""
    data = (WIRE / file).read_bytes()
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    whole, cut = (observe(kind, path, content_type, given) for given in ([data], pieces))
    assert len(whole.chunk_ns) == len(cut.chunk_ns)
    for name in RequestTimeline.__slots__:
        if name not in ("chunk_ns", "first_token_ns", "end_ns"):
            assert getattr(whole, name) == getattr(cut, name)


@pytest.mark.parametrize("ending", [Ending.CLEAN, Ending.CUT])
@pytest.mark.parametrize(
    ("kind", "path", "content_type", "file", "kept"),
    [
        ("ollama", "/api/generate", NDJSON, "ollama_generate.ndjson", 1),
        ("vllm", "/v1/chat/completions", SSE, "vllm_chat.sse", 6),
        ("vllm", "/v1/messages", SSE, "messages.sse", 12),
        ("openai", "/v1/responses", SSE, "responses.sse", 6),
    ],
)
def test_a_stream_without_its_last_word_is_incomplete(
    kind: str, path: str, content_type: str, file: str, kept: int, ending: Ending
) -> None:
    """Whether the bytes ended cleanly or not."""
    seen = observe(kind, path, content_type, lines(file)[:kept], ending=ending)
    assert seen.status is Status.INCOMPLETE


def test_a_torn_last_line_is_incomplete() -> None:
    """Half a last line is not a malformed one."""
    data = (WIRE / "ollama_generate.ndjson").read_bytes()[:-20]
    assert observe("ollama", "/api/generate", NDJSON, [data]).status is Status.INCOMPLETE


def test_a_stream_may_end_after_its_finish_reason() -> None:
    """Some servers send usage on the finish chunk and no [DONE]."""
    body = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}],'
    body += b'"usage":{"prompt_tokens":2,"completion_tokens":1}}\n\n'
    seen = observe("openai", "/v1/chat/completions", SSE, [body])
    assert (seen.status, seen.output_tokens) == (Status.OK, 1)


def test_placeholder_usage_counts_for_nothing() -> None:
    """Ollama's /v1/completions sends zeros until the last chunk; a cut stream has no tokens."""
    body = b'data: {"choices":[{"index":0,"text":"x"}],"usage":{"prompt_tokens":0,'
    body += b'"completion_tokens":0,"total_tokens":0}}\n\n'
    seen = observe("ollama", "/v1/completions", SSE, [body], ending=Ending.CUT)
    assert (seen.status, seen.output_tokens, seen.tokens_source) == (Status.INCOMPLETE, None, None)


def test_running_usage_survives_a_cut() -> None:
    """continuous_usage_stats: the last count that came stands."""
    body = b'data: {"choices":[{"index":0,"text":"x"}],"usage":{"prompt_tokens":3,'
    body += b'"completion_tokens":2}}\n\n'
    seen = observe("vllm", "/v1/completions", SSE, [body], ending=Ending.CUT)
    assert (seen.status, seen.output_tokens) == (Status.INCOMPLETE, 2)


def test_an_error_event_beats_the_done_that_follows() -> None:
    """vLLM fails mid-stream with HTTP 200, an error event, and [DONE]."""
    body = b'data: {"error":{"message":"engine died","type":"InternalServerError"}}\n\n'
    seen = observe("vllm", "/v1/completions", SSE, [body, b"data: [DONE]\n\n"])
    assert (seen.status, seen.error) == (Status.ERROR, "engine died")


def test_a_client_that_leaves_after_the_last_word_missed_nothing() -> None:
    """Clients hang up on [DONE]: that is no cancellation; hanging up before it is."""
    pieces = lines("vllm_chat.sse")
    done = observe("vllm", "/v1/chat/completions", SSE, pieces, ending=Ending.LEFT)
    early = observe("vllm", "/v1/chat/completions", SSE, pieces[:6], ending=Ending.LEFT)
    assert (done.status, early.status) == (Status.OK, Status.CANCELLED)


def test_a_malformed_line_costs_tokens_and_not_the_record() -> None:
    """The last line cannot be read: the request was served, its tokens are unknown."""
    pieces = [*lines("ollama_generate.ndjson")[:1], b'{"done":tru, "eval_count":3}\n']
    seen = observe("ollama", "/api/generate", NDJSON, pieces)
    assert (seen.status, seen.output_tokens, seen.response) == (Status.OK, None, "…")


@pytest.mark.parametrize(
    ("packed", "encoding", "tokens"),
    [
        (gzip.compress, "gzip", 6),
        (zlib.compress, "deflate", 6),
        (bytes, "br", None),
        (bytes, "gzip", None),
    ],
)
def test_compression_costs_at_most_the_tokens(
    packed: object, encoding: str, tokens: int | None
) -> None:
    """gzip and zlib are read; what cannot be leaves a record without tokens."""
    data = packed((WIRE / "vllm_chat.json").read_bytes())  # type: ignore[operator]
    pieces = [data[:30], data[30:]]
    seen = observe("vllm", "/v1/chat/completions", JSON, pieces, encoding=encoding)
    assert (seen.status, seen.output_tokens) == (Status.OK, tokens)


def test_a_body_that_swells_when_unpacked_is_given_up() -> None:
    """A few KiB that hold 64 MiB do not get their memory; the request was served all the same."""
    bomb = gzip.compress(b"\n" * 64 * 1024 * 1024 + b'{"done":true}\n')
    seen = observe("ollama", "/api/generate", NDJSON, [bomb], encoding="gzip")
    assert (seen.status, seen.output_tokens) == (Status.OK, None)
    assert seen.finish_reason is None


def test_thinking_and_tool_calls_are_output_without_being_the_answer() -> None:
    """They were generated: they have a first token, and no text in the response."""
    body = b'{"message":{"role":"assistant","content":"","thinking":"hm"},"done":false}\n'
    body += b'{"message":{"content":"","tool_calls":[{"function":{}}]},"done":false}\n'
    seen = observe("ollama", "/api/chat", NDJSON, [body])
    assert (len(seen.chunk_ns), seen.response) == (2, None)


@given(value=JSON_VALUES)
@pytest.mark.parametrize("kind", list(DIALECTS))
def test_no_json_whatever_raises(kind: str, value: object) -> None:
    """Any object may come as a request or as part of an answer; nothing in it ends the request."""
    for dialect in DIALECTS[kind].values():
        timeline = RequestTimeline(id="r", backend="b", backend_kind=kind, wall_ns=0, sent_ns=0)
        event = {"choices": [value], "message": value, "error": None, "type": "message"}
        for given_object in (event, {"response": value, "type": "response.completed"}, value):
            if isinstance(given_object, dict):
                dialect.read_request(given_object)
                dialect.absorb(Progress(timeline), given_object, 1)
        assert (timeline.id, timeline.sent_ns, timeline.end_ns) == ("r", 0, None)


def test_an_absorber_that_raises_costs_the_tokens_and_nothing_else() -> None:
    """A fault in reading is never the traffic's."""

    def absorb(progress: Progress, event: object, at_ns: int) -> None:
        raise KeyError("choices")

    timeline = RequestTimeline(id="r", backend="b", backend_kind="vllm", wall_ns=0, sent_ns=0)
    observer = Observer(timeline, Dialect(lambda body: RequestFacts(), absorb))
    observer.head(200, [(b"content-type", b"application/x-ndjson")])
    observer.feed(b"{}\n", 1)
    observer.end(2, Ending.CLEAN)
    assert (timeline.status, timeline.output_tokens) == (Status.OK, None)
