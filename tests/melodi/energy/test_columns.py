"""Parts of a column are summed as if each stood alone."""

from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.columns import Runs

FIGURES = st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(st.integers(0, 6), st.lists(FIGURES, min_size=1, max_size=40))))
def test_parts_are_where_keys_change_and_their_sums_hang_on_nothing_beside_them(
    given_parts: list[tuple[int, list[float]]],
) -> None:
    """To the last digit: what a bin is worth must not depend on those closed together with it."""
    pairs = [(key, one) for key, values in sorted(given_parts) for one in values]
    runs = Runs.of_equal(np.array([key for key, _ in pairs], np.intp))
    column = np.array([one for _, one in pairs])
    expected = [[one for _, one in some] for _, some in groupby(pairs, key=lambda one: one[0])]
    assert [column[part].tolist() for part in runs.parts] == expected
    assert len(runs) == len(expected)
    if not expected:
        return
    alone = [np.add.reduceat(np.array(some), [0])[0] for some in expected]
    assert runs.sums(column).tolist() == alone
    spread = runs.spread(np.arange(len(runs))) + np.zeros(len(column))
    assert spread.tolist() == [k for k, some in enumerate(expected) for _ in some]
