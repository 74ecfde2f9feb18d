"""The energy goes into an answer, and every byte round it stays as it was."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.gateway import splice
from melodi.gateway.splice import EventSplice, LineSplice, Splice, WholeSplice, with_field

ENERGY = b'{"energy_joules":1.5}'
COMMENT = b": energy " + ENERGY + b"\n\n"
DONE = b"data: [DONE]\n\n"
EVENTS = [
    b'data: {"choices":[{"delta":{"content":"[DONE] message_stop"}}]}\n\n',
    b": ping\n\n",
    b"event: ping\r\ndata: {}\r\n\r\n",
    b'data: {"type":"response.completed.not"}\n\n',
    b"data: nonsense\n\n",
    b"\n\n",
]
LAST_EVENTS = [
    DONE,
    b"data:[DONE]\r\n\r\n",
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n',
    b'data: {"response":{},"type":"response.incomplete"}\n\n',
    b'data: {"type":"response.failed"}\n\n',
]
LINES = [
    b'{"response":"\\"done\\":true","done":false}\n',
    b"\n",
    b"no json\n",
    b'{"done":"true"}\r\n',
    b'{"message":{"tool_calls":[{"function":{"arguments":{"done":true}}}]},"error":null}\n',
]
LAST_LINES = [b'{"done":true}', b'{"done": true, "eval_count" : 3 }', b'{"error":"broken"}']

# Lists of cuts: where the network may end a piece.
cuts = st.lists(st.integers(0, 400), max_size=12).map(sorted)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *(min(one, len(data)) for one in at), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def told(one: Splice, data: bytes, at: list[int], *, energy: bytes | None = ENERGY) -> bytes:
    """What a client gets of `data` where the energy is told as soon as it is wanted."""
    out = b""
    finished = False
    for piece in pieces(data, at):
        out += piece if finished else one.feed(piece)
        if one.due and not finished:
            finished = True
            out += one.finish(energy)
    return out if finished else out + one.finish(energy)


@given(st.lists(st.sampled_from(EVENTS)), st.sampled_from(LAST_EVENTS), st.binary(max_size=9), cuts)
def test_the_comment_stands_before_the_event_that_ends_a_stream(
    events: list[bytes], last: bytes, after: bytes, at: list[int]
) -> None:
    """Whatever came before and after it stays, however the network cut it."""
    before = b"".join(events)
    assert told(EventSplice(), before + last + after, at) == before + COMMENT + last + after


@given(st.lists(st.sampled_from(EVENTS), min_size=1), cuts)
def test_a_stream_without_a_last_event_has_the_comment_at_its_end(
    events: list[bytes], at: list[int]
) -> None:
    """Some servers just stop."""
    data = b"".join(events)
    assert told(EventSplice(), data, at) == data + COMMENT


@given(st.lists(st.sampled_from(EVENTS)), st.binary(min_size=1, max_size=9), cuts)
def test_a_torn_event_gets_no_comment_into_its_midst(
    events: list[bytes], torn: bytes, at: list[int]
) -> None:
    """What was not ended ends as it was."""
    data = b"".join(events) + b"data: " + torn.replace(b"\n", b"").replace(b"\r", b"")
    assert told(EventSplice(), data, at) == data


@given(
    st.lists(st.sampled_from(LINES)),
    st.sampled_from(LAST_LINES),
    st.sampled_from([b"\n", b"\r\n", b""]),
    cuts,
)
def test_the_last_line_gains_the_field_at_its_end(
    lines: list[bytes], last: bytes, ending: bytes, at: list[int]
) -> None:
    """The lines before it, its own text and its line end stay."""
    before = b"".join(lines)
    brace = last.rindex(b"}")
    expected = last[:brace] + b',"energy":' + ENERGY + last[brace:]
    assert told(LineSplice(), before + last + ending, at) == before + expected + ending
    assert json.loads(expected)["energy"] == {"energy_joules": 1.5}


@given(st.lists(st.sampled_from(LINES)), st.binary(max_size=40), cuts)
def test_lines_without_a_last_one_pass(lines: list[bytes], torn: bytes, at: list[int]) -> None:
    """A server that stops amid its answer has no object to put it into."""
    data = b"".join(lines) + torn.replace(b"}", b"")
    assert told(LineSplice(), data, at) == data


@given(
    st.dictionaries(st.text(max_size=4).filter(lambda key: key != "energy"), st.text(max_size=4)),
    st.sampled_from([None, 2]),
    st.sampled_from(["", "\n", " \r\n"]),
    cuts,
)
def test_an_object_gains_the_field_and_nothing_else_changes(
    fields: dict[str, str], indent: int | None, tail: str, at: list[int]
) -> None:
    """Its text before and after the field is the server's own."""
    body = (json.dumps(fields, indent=indent) + tail).encode()
    whole = WholeSplice(readable=True)
    out = told(whole, body, at)
    assert json.loads(out) == fields | {"energy": {"energy_joules": 1.5}}
    brace = body.rindex(b"}")
    assert out.startswith(body[:brace])
    assert out.endswith(body[brace:])


@pytest.mark.parametrize(
    "body",
    [b"", b"[1,2]", b'"text"', b'{"torn":', b'{"a":1}}', b'{"energy":7}', b"\xff{}", b'{"a":NaN}'],
)
def test_what_is_no_plain_object_stays_as_it_is(body: bytes) -> None:
    """Lists, texts, torn and odd JSON, and an object that tells an energy of its own."""
    assert with_field(body, ENERGY) == body


@given(st.binary(max_size=60), cuts)
def test_what_cannot_be_read_stays_as_it_is(body: bytes, at: list[int]) -> None:
    """Compressed bytes are not looked into."""
    assert told(WholeSplice(readable=False), body, at) == body


@pytest.mark.parametrize("one", [WholeSplice(readable=True), EventSplice(), LineSplice()])
def test_without_energy_everything_stays_as_it_is(one: Splice) -> None:
    """An answer that is cut short is passed on as far as it came."""
    data = b'{"done":true}\ndata: [DONE]\n\n'
    assert told(one, data, [3, 9], energy=None) == data


@given(st.sampled_from([EventSplice, LineSplice]), st.integers(1, 40), st.integers(0, 90))
def test_parts_too_long_to_be_kept_pass_and_the_last_is_still_found(
    kind: type[EventSplice] | type[LineSplice], step: int, long: int
) -> None:
    """Memory is bounded, and no byte is lost or moved."""
    events = kind is EventSplice
    end, last = (b"\n\n", DONE) if events else (b"\n", b'{"done":true}\n')
    data = b"data: " + b"x" * long + end + last

    class Small(kind):  # type: ignore[misc, valid-type]
        limit_bytes = 30

    one = Small()
    out, most, finished = b"", 0, False
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        out += piece if finished else one.feed(piece)
        most = max(most, len(one._held))
        if one.due and not finished:
            finished = True
            out += one.finish(ENERGY)
    assert finished
    assert most <= 30 + step
    assert out.replace(COMMENT, b"").replace(b',"energy":' + ENERGY, b"") == data
    assert b"energy" in out


def test_a_whole_body_beyond_the_limit_passes_from_there_on() -> None:
    """It is not held, and gains nothing."""
    one = WholeSplice(readable=True, limit_bytes=10)
    assert one.feed(b'{"a":"12') == b""
    assert one.feed(b'3456"}') == b'{"a":"123456"}'
    assert one.feed(b" ") == b" "
    assert one.finish(ENERGY) == b""


def test_whole_events_and_lines_leave_at_once() -> None:
    """Nothing but what ends a stream waits for what comes after it."""
    events, lines = EventSplice(), LineSplice()
    for one in EVENTS:
        assert events.feed(one) == one
    for one in LINES:
        assert lines.feed(one) == one
    assert splice.MAX_EVENT_BYTES >= 64 * 1024
