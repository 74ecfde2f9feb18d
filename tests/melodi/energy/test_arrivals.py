"""One search over all streams counts as one search in each would."""

from array import array
from bisect import bisect_left

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.arrivals import Arrivals

STREAMS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.lists(st.integers(0, 2_000), min_size=1, max_size=400).map(sorted),
        st.integers(0, 1_000),
    ),
    min_size=1,
    max_size=30,
)


@given(STREAMS, st.integers(-10, 2_010))
def test_pieces_before_an_edge_are_counted_whatever_came_and_went(
    streams: list[tuple[int, list[int], int]], edge_ns: int
) -> None:
    """Streams take rows that others had, and the line is closed up when it is full."""
    arrivals, present = Arrivals(), {}
    arrivals.resize(6)
    for row, times, start_ns in streams:
        if row in present:
            arrivals.drop(row)
        end_ns = start_ns + 1_500
        arrivals.put(row, array("q", times), start_ns, end_ns)
        present[row] = (times, start_ns, end_ns)
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
    arrivals.put(1, array("q", [5, 6]), 0, 10)
    assert arrivals.before(np.array([0, 1]), np.array([[7, 7]])).tolist() == [[0, 2]]
