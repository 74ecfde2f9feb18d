"""A value is doubted by what happened while it stood still, and by nothing before."""

from collectors.frozen import Stillness

BEFORE_NS, MOVED_NS = 1_000, 2_000
MANY = 50


def test_swings_before_a_value_moved_say_nothing_of_the_new_one() -> None:
    """A sensor that lives is not called stuck for the time before it last moved."""
    stillness = Stillness()
    for number in range(MANY):
        stillness.see_utilisation(number % 2, BEFORE_NS)
    assert not any(stillness.is_doubtful(MOVED_NS) for _ in range(MANY))


def test_a_few_repeats_are_no_stillness_however_work_swings() -> None:
    """A meter that is read seldom may show the same value some times over."""
    stillness = Stillness()
    for number in range(MANY):
        stillness.see_utilisation(number % 2, MOVED_NS)
    assert not any(stillness.is_doubtful(MOVED_NS) for _ in range(10))
    assert any(stillness.is_doubtful(MOVED_NS) for _ in range(MANY))
