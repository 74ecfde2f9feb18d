"""Which beginnings of prompts are already in the cache of keys and values."""

from collections.abc import Sequence

BLOCK_TOKENS = 16
KEPT_BLOCKS = 100_000


class PrefixCache:
    """Remembers prompts by blocks of 16 tokens, each known by all tokens up to its end."""

    def __init__(self, *, kept_blocks: int = KEPT_BLOCKS):
        self._blocks: dict[int, None] = {}
        self._kept_blocks = kept_blocks

    def cached_tokens(self, prompt: Sequence[int]) -> int:
        """How many leading tokens of `prompt` need no prefill; never all of them.

        At least one token is computed, since the first answer token comes out of it.
        """
        cached = 0
        for block in _chain(prompt[:-1]):
            if block not in self._blocks:
                break
            self._blocks[block] = self._blocks.pop(block)
            cached += BLOCK_TOKENS
        return cached

    def remember(self, prompt: Sequence[int]) -> None:
        """The blocks of `prompt` are cached now; those unused for longest make room."""
        for block in _chain(prompt):
            self._blocks.pop(block, None)
            self._blocks[block] = None
        while len(self._blocks) > self._kept_blocks:
            del self._blocks[next(iter(self._blocks))]

    def clear(self) -> None:
        """Forget all, as when the model leaves memory."""
        self._blocks.clear()


def _chain(prompt: Sequence[int]) -> list[int]:
    """One number per full block, standing for it and everything before it."""
    chained, so_far = [], 0
    for end in range(BLOCK_TOKENS, len(prompt) + 1, BLOCK_TOKENS):
        so_far = hash((so_far, *prompt[end - BLOCK_TOKENS : end]))
        chained.append(so_far)
    return chained
