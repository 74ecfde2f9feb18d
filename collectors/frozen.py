"""Tells a sensor that is stuck from one whose device does nothing new."""

_ENOUGH_REPEATS = 20
_ENOUGH_SWINGS = 5
_SWING_RATIO = 0.25


class Stillness:
    """Watches one value that stands still beside the utilisation of the device that it is of.

    Real power and energy are never the same to the milliwatt while work comes and goes: a value
    that repeats bit for bit through several swings of utilisation is no reading. It is asked only
    about values that have been the same for long, told by the moment at which they last moved.
    """

    def __init__(self) -> None:
        self._since_ns: int | None = None
        self._repeats = 0
        self._swings = 0
        self._utilisation_ratio: float | None = None

    def is_doubtful(self, since_ns: int) -> bool:
        """The value was read again and is that of `since_ns`; whether it is a stuck sensor's."""
        self._begin_anew_where_moved(since_ns)
        self._repeats += 1
        return self._repeats >= _ENOUGH_REPEATS and self._swings >= _ENOUGH_SWINGS

    def see_utilisation(self, ratio: float, since_ns: int) -> None:
        """Take the utilisation of now, from 0 to 1; a swing is a change of a quarter."""
        self._begin_anew_where_moved(since_ns)
        if self._utilisation_ratio is None:
            self._utilisation_ratio = ratio
        elif abs(ratio - self._utilisation_ratio) >= _SWING_RATIO:
            self._utilisation_ratio = ratio
            self._swings += 1

    def _begin_anew_where_moved(self, since_ns: int) -> None:
        if since_ns != self._since_ns:
            self._since_ns, self._repeats, self._swings = since_ns, 0, 0
