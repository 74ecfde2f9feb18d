"""Tells a sensor that is stuck from one whose device does nothing new."""

_ENOUGH_REPEATS = 20
_ENOUGH_SWINGS = 5
_SWING_RATIO = 0.25


class Stillness:
    """Watches one value beside the utilisation of the device that it is of.

    Real power and energy are never the same to the milliwatt while work comes and goes: a value
    that repeats bit for bit through several swings of utilisation is no reading.
    """

    def __init__(self) -> None:
        self._repeats = 0
        self._swings = 0
        self._utilisation_ratio: float | None = None

    def end(self) -> None:
        """The value has moved."""
        self._repeats = self._swings = 0

    def lasts(self) -> bool:
        """The value was read again and is the same; whether it is that of a stuck sensor."""
        self._repeats += 1
        return self._repeats >= _ENOUGH_REPEATS and self._swings >= _ENOUGH_SWINGS

    def see_utilisation(self, ratio: float) -> None:
        """Take the utilisation of now, from 0 to 1; a swing is a change of a quarter."""
        if self._utilisation_ratio is None:
            self._utilisation_ratio = ratio
        elif abs(ratio - self._utilisation_ratio) >= _SWING_RATIO:
            self._utilisation_ratio = ratio
            self._swings += 1
