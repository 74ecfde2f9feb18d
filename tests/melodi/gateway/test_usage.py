"""The usage event is the one thing that is added and taken away again."""

import json

from hypothesis import given
from hypothesis import strategies as st

from melodi.gateway.usage import MAX_HELD_BYTES, UsageFilter, ask

USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7}}\n\n'
OTHERS = [
    b'data: {"choices":[{"index":0,"text":"\\"usage\\":{}"}],"usage":null}\n\n',
    b'data: {"choices":[],"usage":null}\n\n',
    b": ping\n\n",
    b'data: {"error":{"message":"usage"}}\r\n\r\n',
    b"data: nonsense with \"usage\"\n\n",
    b"data: [DONE]\n\n",
]  # fmt: skip
FORCED = b'data: {"choices":[{"index":0,"text":"x"}],"usage":{"prompt_tokens":7}}\n\n'


def passed(data: bytes, step: int) -> bytes:
    """What passes of a stream that comes in pieces of `step` bytes."""
    usage = UsageFilter()
    pieces = [usage.feed(data[start : start + step]) for start in range(0, len(data), step)]
    return b"".join(pieces) + usage.finish()


@given(st.lists(st.sampled_from([USAGE, *OTHERS])), st.integers(1, 80), st.binary(max_size=9))
def test_everything_passes_but_the_usage_event(events: list[bytes], step: int, tail: bytes) -> None:
    """Byte for byte and in order, however the network cut it, a torn end included."""
    expected = b"".join(event for event in events if event != USAGE)
    tail = tail.replace(b"\n", b"")
    assert passed(b"".join(events) + tail, step) == expected + tail


def test_a_server_that_tells_usage_unasked_keeps_telling_it() -> None:
    """With usage on every event the client would have had the last one too."""
    assert passed(FORCED + USAGE, 7) == FORCED + USAGE


def test_whole_events_leave_at_once() -> None:
    """Nothing waits for what comes after it."""
    usage = UsageFilter()
    assert usage.feed(OTHERS[0]) == OTHERS[0]
    assert usage.feed(OTHERS[1][:5]) == b""
    assert usage.feed(OTHERS[1][5:]) == OTHERS[1]


def test_an_event_too_long_to_be_the_answer_is_not_held() -> None:
    """An event with megabytes of log-probabilities streams through."""
    usage = UsageFilter()
    start = b'data: {"choices":[' + b"1," * MAX_HELD_BYTES
    assert usage.feed(start) == start
    assert usage.feed(b"1]}\n\n" + USAGE + OTHERS[0]) == b"1]}\n\n" + OTHERS[0]


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4)), st.booleans())
def test_the_question_changes_nothing_else_in_a_request(
    fields: dict[str, object], indent: bool
) -> None:
    """The text before it stays, and the object gains one field."""
    request = fields | {"stream": True}
    body = json.dumps(request, indent=2 if indent else None).encode()
    asked = ask(body)
    assert asked is not None
    assert json.loads(asked) == request | {"stream_options": {"include_usage": True}}
    assert asked.startswith(body.rstrip()[:-1])
