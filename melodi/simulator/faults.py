"""Faults that a test orders: the next requests fail in a chosen way."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from melodi.errors import CutShort


class FaultKind(StrEnum):
    """How a request fails."""

    DIE_MID_STREAM = "die_mid_stream"
    """The connection closes without a proper end."""
    ERROR_LINE = "error_line"
    """The engine reports an error in the midst of an answer."""
    HTTP_500 = "http_500"
    """The request is refused before anything runs."""


class ConnectionCut(CutShort):
    """The connection is to close without a proper end."""


class EngineFailed(Exception):
    """The engine broke under a request."""

    def __init__(self) -> None:
        super().__init__("an error was encountered while running the model: unexpected EOF")


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure to come."""

    kind: FaultKind
    after_tokens: int = 0
    """Output tokens that still get through."""

    def strike(self, emitted: int) -> None:
        """Raise ConnectionCut or EngineFailed once `emitted` tokens have got through."""
        if emitted < self.after_tokens:
            return
        if self.kind is FaultKind.DIE_MID_STREAM:
            raise ConnectionCut
        raise EngineFailed


class Faults:
    """The failures to come, in order, one for each inference request."""

    def __init__(self) -> None:
        self._coming: deque[Fault] = deque()

    def order(self, wish: Mapping[str, object]) -> int:
        """Add `count` faults of a `kind`, each `after_tokens`; gives how many are to come.

        Raises ValueError where the wish cannot be read.
        """
        kinds = ", ".join(FaultKind)
        if wish.get("kind") not in list(FaultKind):
            raise ValueError(f"kind must be one of {kinds}")
        after_tokens, count = wish.get("after_tokens", 0), wish.get("count", 1)
        if not isinstance(after_tokens, int) or not isinstance(count, int):
            raise ValueError("after_tokens and count must be whole numbers")
        fault = Fault(FaultKind(str(wish["kind"])), after_tokens)
        self._coming.extend([fault] * count)
        return len(self._coming)

    def take(self) -> Fault | None:
        """The fault of the request that begins now."""
        return self._coming.popleft() if self._coming else None
