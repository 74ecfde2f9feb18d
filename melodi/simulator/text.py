"""Text of the simulated models: a rule for tokens, and words without meaning."""

import re
from array import array
from collections.abc import Sequence
from random import Random
from zlib import crc32

SHORTEST_ANSWER = 20
LONGEST_ANSWER = 200

_PIECE = re.compile(r" ?\w{1,4}|\s|[^\w\s]")
_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"


def tokenize(text: str) -> tuple[int, ...]:
    """Token ids of `text`: up to four letters with the space before them, or one other character.

    Equal pieces have equal ids.
    """
    return tuple(crc32(piece.encode()) for piece in _PIECE.findall(text))


def natural_length(prompt: Sequence[int], *, seed: int) -> int:
    """How many tokens the model answers to `prompt` if nothing limits it: 20 to 200."""
    return SHORTEST_ANSWER + _fingerprint(prompt, seed) % (LONGEST_ANSWER - SHORTEST_ANSWER + 1)


def compose(prompt: Sequence[int], tokens: int, *, seed: int) -> list[str]:
    """An answer of `tokens` pieces, one token each; equal prompts have equal answers."""
    random = Random(_fingerprint(prompt, seed))  # noqa: S311 - nothing to keep secret
    return [_piece(random) for _ in range(tokens)]


def as_json(pieces: Sequence[str]) -> list[str]:
    """The same tokens as a JSON object with one text."""
    if not pieces:
        return []
    wrapped = ['{"text": "' + pieces[0], *pieces[1:]]
    return [*wrapped[:-1], wrapped[-1] + '"}']


def _piece(random: Random) -> str:
    choose = random.choice
    syllables = choose(_CONSONANTS) + choose(_VOWELS) + choose(_CONSONANTS) + choose(_VOWELS)
    return " " + syllables if random.random() < 0.5 else syllables


def _fingerprint(prompt: Sequence[int], seed: int) -> int:
    return crc32(array("q", prompt).tobytes(), seed)
