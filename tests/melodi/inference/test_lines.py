"""Lines do not depend on how the network cut the bytes, and their memory is bounded."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from melodi.inference.lines import LineSplitter

TEXT = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b" "])).map(b"".join)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places, empty pieces among them."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@given(TEXT, st.lists(st.integers(0, 100)))
def test_lines_are_those_of_the_whole_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    """What comes out piece by piece is what bytes.splitlines gives for the whole."""
    splitter = LineSplitter()
    lines = [line for piece in pieces(data, cuts) for line in splitter.feed(piece)]
    if splitter.pending:
        lines += splitter.finish()
    assert lines == data.splitlines()
    assert splitter.dropped == 0


def test_a_line_over_the_limit_is_dropped_and_counted_and_the_next_is_read() -> None:
    """An endless line holds no more memory than the limit."""
    splitter = LineSplitter(limit_bytes=10)
    for _ in range(1000):
        assert splitter.feed(b"xxxxxxx") == []
        assert sum(map(len, splitter._parts)) <= 10
    assert splitter.feed(b"\nnext\n") == [b"next"]
    assert splitter.dropped == 1
    assert splitter.feed(b"0123456789\n") == [b"0123456789"]
