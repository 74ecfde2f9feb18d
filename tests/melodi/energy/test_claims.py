"""Backends and models get what they had a part in, and every joule is somebody's or nobody's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.energy.claims import Party, claim
from melodi.energy.roster import Group

NAMES = ("ollama", "vllm", "other")


def party(backend: str, union: float = 1.0, *, predicted: float | None = None) -> Party:
    return Party(Group(backend, "m"), union, predicted)


PARTIES = st.lists(
    st.builds(
        lambda backend, union, joules: party(backend, union, predicted=joules),
        st.sampled_from(NAMES),
        st.floats(1, 1e9),
        st.one_of(st.none(), st.floats(0.01, 100)),
    ),
    max_size=4,
)
SHARES = st.one_of(st.none(), st.dictionaries(st.sampled_from(NAMES[:2]), st.floats(0, 0.5)))


@given(st.floats(0, 1_000), PARTIES, SHARES, st.booleans())
def test_the_claims_add_up_to_the_dynamic_energy(
    dynamic: float, parties: list[Party], shares: dict[str, float] | None, exclusive: bool
) -> None:
    """Whoever is there, whatever was watched: nothing is lost, nothing is below 0."""
    found = claim(dynamic, parties, shares, exclusive=exclusive)
    total = sum(found.joules) + found.foreign + found.unattributed
    assert total == pytest.approx(dynamic, abs=1e-9 * max(1.0, dynamic))
    assert min([*found.joules, found.foreign, found.unattributed]) >= -1e-9 * max(1.0, dynamic)
    if exclusive or shares is None:
        assert found.foreign == 0


def test_what_no_backend_used_is_foreign() -> None:
    """Two watched backends had 50 and 20 %; the rest was somebody else's."""
    found = claim(
        100.0, [party("ollama"), party("vllm")], {"ollama": 0.5, "vllm": 0.2}, exclusive=False
    )
    assert found.joules == (pytest.approx(50.0), pytest.approx(20.0))
    assert found.foreign == pytest.approx(30.0)


def test_a_backend_that_works_for_nobody_in_service_is_unattributed_not_foreign() -> None:
    """It is ours, but no request of it is in service."""
    found = claim(100.0, [], {"ollama": 0.4}, exclusive=False)
    assert found.unattributed == pytest.approx(40.0)
    assert found.foreign == pytest.approx(60.0)


def test_a_backend_in_service_that_nobody_watches_gets_the_rest() -> None:
    """Its part cannot be called foreign; the result says that it was not watched."""
    found = claim(100.0, [party("ollama"), party("other")], {"ollama": 0.4}, exclusive=False)
    assert found.joules == (pytest.approx(40.0), pytest.approx(60.0))
    assert found.foreign == 0
    assert found.unwatched


def test_nobody_else_works_on_an_exclusive_domain() -> None:
    """Shares of a half are then shares of the whole."""
    found = claim(100.0, [party("ollama")], {"ollama": 0.5}, exclusive=True)
    assert found.joules == (pytest.approx(100.0),)


def test_models_share_by_the_time_that_anybody_was_served_until_costs_are_known() -> None:
    """An engine draws about the same with one request as with many."""
    by_time = claim(90.0, [party("a", 2.0), party("b", 1.0, predicted=9.0)], None, exclusive=False)
    assert by_time.joules == (pytest.approx(60.0), pytest.approx(30.0))
    known = [party("a", 2.0, predicted=1.0), party("b", 1.0, predicted=9.0)]
    by_costs = claim(90.0, known, None, exclusive=False)
    assert by_costs.joules == (pytest.approx(9.0), pytest.approx(81.0))
