"""NDJSON is read object by object; what is none is counted and passed over."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from melodi.inference.ndjson import NdjsonParser, read_object

VALUES = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(0, 9)))


@given(VALUES, st.integers(1, 7))
def test_objects_do_not_depend_on_the_cuts(values: list[dict[str, object]], step: int) -> None:
    """Written as lines and read in small pieces, the objects come back in order."""
    data = b"".join(orjson.dumps(value) + b"\n" for value in values)
    parser = NdjsonParser()
    found = [
        value
        for start in range(0, len(data), step)
        for value in parser.feed(data[start : start + step])
    ]
    assert found == values
    assert parser.finish() == []
    assert parser.lost == 0


def test_a_malformed_line_is_counted_and_the_next_is_read() -> None:
    """One bad line costs that line; blank lines cost nothing."""
    parser = NdjsonParser()
    assert parser.feed(b'nonsense\n[1]\n\r\n{"a":1}\n') == [{"a": 1}]
    assert parser.lost == 2


def test_a_last_line_without_its_end_is_read_if_it_is_whole() -> None:
    """A torn line is no malformed one: the stream ended, and says so by having no last object."""
    whole, torn = NdjsonParser(), NdjsonParser()
    whole.feed(b'{"done":true}')
    torn.feed(b'{"done":tr')
    assert whole.finish() == [{"done": True}]
    assert torn.finish() == []
    assert torn.lost == 0


def test_text_that_is_no_object_gives_none() -> None:
    """An array, a number or broken UTF-8 is no object."""
    assert [read_object(text) for text in (b"[]", b"1", b'{"a":"\xff"}', b"")] == [None] * 4
