"""Memory that is free goes back to the system."""

import ctypes

import psutil
import pytest

from melodi.memory import give_back

MIB = 1 << 20
PIECE, PIECES = 32 * 1024, 2_000


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc can; run this on such a Linux"
)
def test_what_lies_free_below_something_in_use_goes_back() -> None:
    """The C library by itself only gives back what is free at the end."""
    library = ctypes.CDLL(None)
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.free.argtypes, library.free.restype = [ctypes.c_void_p], None
    pieces = [library.malloc(PIECE) for _ in range(PIECES)]
    for one in pieces:
        ctypes.memset(one, 1, PIECE)
    *others, last = pieces
    for one in others:
        library.free(one)
    process = psutil.Process()
    before = process.memory_info().rss
    give_back()
    after = process.memory_info().rss
    library.free(last)
    assert before - after > 50 * MIB
