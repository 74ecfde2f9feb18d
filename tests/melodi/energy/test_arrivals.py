"""One search over all streams counts as one search in each would."""

from array import array
from bisect import bisect_left

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.arrivals import Arrivals

STREAMS = st.lists(
    st.dictionaries(
        st.integers(0, 5),
        st.tuples(
            st.lists(st.integers(0, 2_000), min_size=1, max_size=400).map(sorted),
            st.integers(0, 1_000),
        ),
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=20,
)
"""By row, many at a time: arrivals, and when the service began."""


def put(arrivals: Arrivals, streams: dict[int, tuple[list[int], int, int]]) -> None:
    times, starts_ns, ends_ns = zip(*streams.values(), strict=True)
    pieces = [array("q", one) for one in times]
    arrivals.put(np.array([*streams]), pieces, np.array(starts_ns), np.array(ends_ns))


@given(STREAMS, st.integers(-10, 2_010))
def test_pieces_before_an_edge_are_counted_whatever_came_and_went(
    batches: list[dict[int, tuple[list[int], int]]], edge_ns: int
) -> None:
    """Streams take rows that others had, and the line is closed up when it is full."""
    arrivals, present = Arrivals(), {}
    arrivals.resize(6)
    for batch in batches:
        arrivals.drop([row for row in batch if row in present])
        streams = {row: (times, start, start + 1_500) for row, (times, start) in batch.items()}
        put(arrivals, streams)
        present |= streams
    rows = sorted(present)
    edges, expected = [], []
    for row in rows:
        times, start_ns, end_ns = present[row]
        within = [min(max(one, start_ns), end_ns) for one in times]
        edges.append(min(max(edge_ns, start_ns), end_ns + 1))
        expected.append(bisect_left(within, edges[-1]))
    assert arrivals.before(np.array(rows), np.array([edges])).tolist() == [expected]


def test_a_row_without_a_stream_has_no_pieces() -> None:
    """Its request was not streamed."""
    arrivals = Arrivals()
    arrivals.resize(2)
    put(arrivals, {1: ([5, 6], 0, 10)})
    assert arrivals.before(np.array([0, 1]), np.array([[7, 7]])).tolist() == [[0, 2]]
