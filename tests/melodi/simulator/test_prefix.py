"""The prefix cache."""

from hypothesis import given
from hypothesis import strategies as st

from melodi.simulator.prefix import BLOCK_TOKENS, PrefixCache

prompts = st.lists(st.integers(0, 3), min_size=1, max_size=100)


@given(st.lists(prompts, max_size=4), prompts)
def test_what_is_cached_is_the_longest_prefix_shared_with_a_seen_prompt(
    seen: list[list[int]], prompt: list[int]
) -> None:
    """In whole blocks, and leaving at least one token to compute."""
    cache = PrefixCache()
    for earlier in seen:
        cache.remember(earlier)
    longest = max((_shared(earlier, prompt[:-1]) for earlier in seen), default=0)
    assert cache.cached_tokens(prompt) == longest // BLOCK_TOKENS * BLOCK_TOKENS


def _shared(first: list[int], second: list[int]) -> int:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length


def test_blocks_in_use_stay_when_room_is_short() -> None:
    """The block unused for longest goes first."""
    cache = PrefixCache(kept_blocks=2)
    kept, dropped, new = [1] * 17, [2] * 17, [3] * 17
    cache.remember(kept)
    cache.remember(dropped)
    assert cache.cached_tokens(kept) == 16
    cache.remember(new)
    assert [cache.cached_tokens(prompt) for prompt in (kept, dropped, new)] == [16, 0, 16]


def test_a_cleared_cache_knows_nothing() -> None:
    """An unloaded model has no prefixes."""
    cache = PrefixCache()
    cache.remember([1] * 32)
    cache.clear()
    assert cache.cached_tokens([1] * 32) == 0
