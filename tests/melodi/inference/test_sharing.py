"""Parts are what processes used; what is not known is None."""

import pytest

from melodi.inference.sharing import Parts, cpu_parts, gpu_parts

OWNERS = {"a": {1, 2}, "b": {3}}


def test_parts_of_cpu_time_leave_the_rest_to_others() -> None:
    """Three of ten busy seconds are foreign."""
    assert cpu_parts({"a": 5, "b": 2}, 10) == Parts({"a": 0.5, "b": 0.2})


def test_a_backend_that_is_not_known_has_no_part() -> None:
    """Left out, it is not taken for one that did nothing."""
    assert cpu_parts({"a": 5, "b": None}, 10) == Parts({"a": 0.5})
    assert cpu_parts({"b": None}, 10) is None
    assert cpu_parts({}, 10) is None
    assert cpu_parts({"a": 0}, 0) is None


def test_parts_of_cpu_time_are_never_more_than_all() -> None:
    """The host's ticks may fall behind the processes' own time."""
    assert cpu_parts({"a": 6, "b": 6}, 10) == Parts({"a": 0.5, "b": 0.5})


def test_a_gpu_with_one_backend_and_nobody_else_is_all_its_own() -> None:
    """Without a reason: nothing is estimated, whether or not it was busy."""
    assert gpu_parts(OWNERS, running={1, 2}, busy=None) == Parts({"a": 1.0, "b": 0.0})
    assert gpu_parts(OWNERS, running={1}, busy={}) == Parts({"a": 1.0, "b": 0.0})


def test_beside_foreign_processes_the_sm_time_decides() -> None:
    """And the reason says that it is an estimate."""
    parts = gpu_parts(OWNERS, running={1, 2, 9}, busy={1: 30, 2: 10, 9: 40})
    assert parts == Parts({"a": 0.5, "b": 0.0}, "foreign_estimated")


def test_backends_that_share_a_gpu_are_told_apart_by_sm_time() -> None:
    """All of it is theirs; how it falls to them is an estimate."""
    parts = gpu_parts(OWNERS, running={1, 3}, busy={1: 10, 3: 30})
    assert parts == Parts({"a": 0.25, "b": 0.75}, "split_estimated")


@pytest.mark.parametrize("busy", [None, {}])
def test_without_sm_time_a_shared_gpu_is_unknown(busy: dict[int, int] | None) -> None:
    """Beside others, foreign or not."""
    assert gpu_parts(OWNERS, running={1, 9}, busy=busy) is None
    assert gpu_parts(OWNERS, running={1, 3}, busy=busy) is None


def test_a_gpu_without_backends_is_nobodys_business() -> None:
    """Whoever else is there."""
    assert gpu_parts(OWNERS, running={9}, busy={9: 50}) is None
    assert gpu_parts(OWNERS, running=(), busy={}) is None
