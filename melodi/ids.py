"""Request ids: UUID version 7, so that ids sort by the time a request began (RFC 9562, 5.7)."""

import random

_CHANCE = random.Random()  # noqa: S311  an id is unique, not secret; the system's own costs 5 us
_RANDOM_BITS = 62


def new_id(wall_ns: int) -> str:
    """A new UUIDv7 for a request that began at `wall_ns` (nanoseconds since 1970).

    The 12 bits after the milliseconds hold their fraction, so ids sort within a millisecond too.
    """
    milliseconds, rest_ns = divmod(wall_ns, 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    value = (
        (milliseconds & 0xFFFF_FFFF_FFFF) << 80
        | 0x7 << 76
        | fraction << 64
        | 0b10 << 62
        | _CHANCE.getrandbits(_RANDOM_BITS)
    )
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
