"""What is counted in a text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.datasets.features import TextFeatures, entropy_bits, length_table, text_features


@pytest.mark.parametrize(
    ("text", "words", "sentences"),
    [
        ("", 0, 0),
        (" -- ", 0, 0),
        ("Hello", 1, 1),
        ("Pi is 3.14, or so. Really?! Yes", 7, 3),
        ('He said "stop." Then he left.', 6, 2),
        ("A heading\n\nand a line", 5, 2),
        ("今日は。明日は。", 1, 2),
    ],
)
def test_words_and_sentences_are_counted(text: str, words: int, sentences: int) -> None:
    """Dashes are no words, decimal points end no sentence, headings do."""
    features = text_features(text)
    assert (features.words, features.sentences) == (words, sentences)


def test_the_entropy_of_an_empty_text_is_unknown() -> None:
    """Nothing was measured, so it is None and not 0; one repeated letter does measure 0."""
    assert text_features("") == TextFeatures(
        characters=0, words=0, sentences=0, entropy_bits_per_character=None
    )
    assert math.copysign(1, entropy_bits("aaaa") or 0.0) == 1
    assert entropy_bits("aaaa") == 0


@given(st.sets(st.characters(), min_size=1), st.integers(1, 5))
def test_equally_frequent_characters_have_the_logarithm_of_their_number(
    alphabet: set[str], times: int
) -> None:
    """n characters, each as frequent as the others, carry log2 n bits each."""
    bits = entropy_bits("".join(sorted(alphabet)) * times)
    assert bits == pytest.approx(math.log2(len(alphabet)), abs=1e-9)


@given(st.text(min_size=1), st.randoms(use_true_random=False))
def test_entropy_does_not_depend_on_order_and_is_bounded(text: str, random: object) -> None:
    """Shuffling changes nothing, and no text exceeds the logarithm of its alphabet."""
    shuffled = list(text)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    bits = entropy_bits(text)
    assert bits is not None
    assert entropy_bits("".join(shuffled)) == pytest.approx(bits, abs=1e-9)
    assert 0 <= bits <= math.log2(len(set(text))) + 1e-9


def test_the_length_table_has_a_row_a_task_and_one_for_all() -> None:
    """Tasks are sorted, and the last row covers every text."""
    table = length_table([("qa", "a b c."), ("chat", "a"), ("qa", "a.")]).splitlines()
    assert table[2:] == [
        "| chat | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 0.00 |",
        "| qa | 2 | 1 | 2 | 3 | 4 | 8 | 1 | 1.63 |",
        "| all | 3 | 1 | 1 | 3 | 5 | 9 | 1 | 1.08 |",
    ]
