"""Light features of a text, and how long the prompts of a set are by task."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median

_HEADER = (
    "| task | prompts | words: least | median | most | in all | characters in all "
    "| sentences, median | bits per character, mean |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]|\n\s*\n")
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeatures:
    """What can be counted in a text without a language model."""

    characters: int
    """Unicode code points."""
    words: int
    """Runs between white space that hold a letter or a digit."""
    sentences: int
    """Stretches between full stops, question marks, exclamation marks and empty lines."""
    entropy_bits_per_character: float | None
    """Shannon entropy of the text's own character frequencies; None for an empty text."""


def text_features(text: str) -> TextFeatures:
    """Count `text` once over; languages written without spaces count few words."""
    return TextFeatures(
        characters=len(text),
        words=_with_word(text.split()),
        sentences=_with_word(_SENTENCE_END.split(text)),
        entropy_bits_per_character=entropy_bits(text),
    )


def entropy_bits(text: str) -> float | None:
    """Shannon entropy in bits per character: -sum p log2 p (Shannon 1948, section 6)."""
    if not text:
        return None
    total = len(text)
    return math.fsum(n / total * math.log2(total / n) for n in Counter(text).values())


def length_table(texts: Iterable[tuple[str, str]]) -> str:
    """A Markdown table of lengths by task, from pairs of task and text."""
    by_task: dict[str, list[TextFeatures]] = {}
    everything: list[TextFeatures] = []
    for task, text in texts:
        features = text_features(text)
        by_task.setdefault(task, []).append(features)
        everything.append(features)
    lines = [_HEADER, *(_length_row(task, by_task[task]) for task in sorted(by_task))]
    if everything:
        lines.append(_length_row("all", everything))
    return "\n".join(lines)


def _length_row(name: str, texts: list[TextFeatures]) -> str:
    words = [text.words for text in texts]
    bits = [b for text in texts if (b := text.entropy_bits_per_character) is not None]
    cells = (
        name,
        f"{len(texts)}",
        f"{min(words)}",
        f"{median(words):g}",
        f"{max(words)}",
        f"{sum(words)}",
        f"{sum(text.characters for text in texts)}",
        f"{median(text.sentences for text in texts):g}",
        f"{fmean(bits):.2f}" if bits else "",
    )
    return f"| {' | '.join(cells)} |"


def _with_word(pieces: Iterable[str]) -> int:
    return sum(1 for piece in pieces if _WORD.search(piece))
