"""Server-sent events are read as the standard says, however they are cut."""

from hypothesis import given
from hypothesis import strategies as st

from melodi.inference.sse import SseEvent, SseParser

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"data", b": note", b"event: ping", b"id: 7", b"retry: 1", b"", b""]
    )
)


def read(pieces: list[bytes]) -> list[SseEvent]:
    """All events of a stream that comes in these pieces."""
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)] + parser.finish()


@given(LINES, LINE_ENDS, st.integers(1, 5))
def test_events_do_not_depend_on_the_cuts(lines: list[bytes], end: bytes, step: int) -> None:
    """A stream gives the same events in one piece and in small ones, whatever its line ends."""
    data = b"".join(line + end for line in lines)
    small = [data[start : start + step] for start in range(0, len(data), step)]
    unix = b"".join(line + b"\n" for line in lines)
    assert read(small) == read([data]) == read([unix])


@given(
    st.lists(
        st.sampled_from(
            [
                b"data: a\n\n",
                b"data: b\r",
                b"\n",
                b"data: c",
                b"event: d\n",
                b"data: e\n",
                b": f\n\n",
            ]
        )
    )
)
def test_whole_events_are_read_alike_after_whatever_came_before(pieces: list[bytes]) -> None:
    """One that comes in a piece of its own takes a short way, only where nothing is open."""
    assert read(pieces) == read([b"".join(pieces)])


def test_an_event_is_its_name_and_its_joined_data() -> None:
    """Comments and other fields are passed over; one space after the colon goes."""
    data = b": hi\nevent: ping\ndata: one\ndata:  two\nid: 3\n\ndata: [DONE]\n\n"
    assert read([data]) == [SseEvent("ping", b"one\n two"), SseEvent("message", b"[DONE]")]


def test_an_event_without_data_is_none_and_its_name_is_forgotten() -> None:
    """A name alone dispatches nothing and does not stick to the next event."""
    assert read([b"event: ping\n\ndata: x\n\n"]) == [SseEvent("message", b"x")]


def test_a_byte_order_mark_is_passed_over() -> None:
    """Only at the very start of the stream."""
    assert read([b"\xef\xbb\xbfdata: x\n\n"]) == [SseEvent("message", b"x")]


def test_the_last_event_needs_no_blank_line() -> None:
    """A stream that ends right after its last line still gives it."""
    assert read([b"data: [DONE]"]) == [SseEvent("message", b"[DONE]")]


def test_an_event_over_the_limit_is_dropped_and_counted() -> None:
    """Neither one long line nor many short ones can grow the memory."""
    parser = SseParser(limit_bytes=10)
    assert parser.feed(b"data: 0123456789abc\n\n") == []
    for _ in range(1000):
        parser.feed(b"data: abc\n")
        assert sum(map(len, parser._data)) <= 11
    assert parser.feed(b"data: x\n\n") == []
    assert parser.feed(b"data: ok\n\n") == [SseEvent("message", b"ok")]
    assert parser.lost == 2
