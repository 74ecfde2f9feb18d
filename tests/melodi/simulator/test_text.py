"""Tokens and words."""

from hypothesis import given
from hypothesis import strategies as st

from melodi.simulator.text import compose, natural_length, tokenize


@given(st.lists(st.integers(0, 2**32), max_size=20), st.integers(0, 100), st.integers(0, 9))
def test_an_answer_has_as_many_tokens_as_were_asked_for(
    prompt: list[int], count: int, seed: int
) -> None:
    """Tokenising the text of an answer gives one token for each piece."""
    pieces = compose(prompt, count, seed=seed)
    assert len(pieces) == count
    assert len(tokenize("".join(pieces))) == count


def test_a_token_is_about_four_characters() -> None:
    """Words are cut after four letters; the space goes with the word; marks stand alone."""
    assert len(tokenize("measurement of energy, twice")) == 3 + 1 + 2 + 1 + 2


def test_equal_beginnings_have_equal_tokens() -> None:
    """What two texts share in words they share in tokens, so the prefix cache can see it."""
    one, other = tokenize("the same start then this"), tokenize("the same start then that")
    assert one[:5] == other[:5]
    assert one != other


@given(st.lists(st.integers(0, 2**32), max_size=20), st.integers(0, 9))
def test_a_model_answers_a_prompt_always_at_the_same_length(prompt: list[int], seed: int) -> None:
    """The natural length is 20 to 200 tokens and depends on prompt and seed alone."""
    length = natural_length(prompt, seed=seed)
    assert 20 <= length <= 200
    assert length == natural_length(list(prompt), seed=seed)
    assert compose(prompt, 5, seed=seed) == compose(list(prompt), 5, seed=seed)


def test_lengths_and_words_differ_between_prompts() -> None:
    """Prompts are told apart: neither their lengths nor their answers are all alike."""
    prompts = [tokenize(f"prompt number {number}") for number in range(50)]
    assert len({natural_length(prompt, seed=0) for prompt in prompts}) > 20
    assert len({"".join(compose(prompt, 5, seed=0)) for prompt in prompts}) == 50
