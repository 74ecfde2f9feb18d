"""Cuts a stream of bytes into lines, however the network cut it, within a bound of memory."""

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longer lines are dropped: Ollama's last line repeats a context of up to a million token ids."""


class LineSplitter:
    """Remembers the line that has begun; lines end in LF, CR LF or CR."""

    def __init__(self, *, limit_bytes: int = MAX_LINE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._skips_lf = False
        self.dropped = 0
        """Lines longer than the limit, left out of what `feed` and `finish` gave."""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their line ends."""
        if self._skips_lf and data:
            self._skips_lf = False
            data = data.removeprefix(b"\n")
        lines: list[bytes] = []
        for piece in data.splitlines(keepends=True):
            body = piece.rstrip(b"\r\n")
            self._add(body)
            if len(body) < len(piece):
                lines += self.finish()
        self._skips_lf = data.endswith(b"\r") or (self._skips_lf and not data)
        return lines

    def finish(self) -> list[bytes]:
        """The line that has begun, if it is within the limit and not empty of bytes to come."""
        size_bytes, parts = self._size_bytes, self._parts
        self._size_bytes, self._parts = 0, []
        if size_bytes > self._limit_bytes:
            self.dropped += 1
            return []
        return [b"".join(parts)]

    @property
    def pending(self) -> bool:
        """Whether a line has begun and not ended."""
        return self._size_bytes > 0

    @property
    def may_skip(self) -> bool:
        """Whether the next byte may be the second half of a line end."""
        return self._skips_lf

    def _add(self, body: bytes) -> None:
        self._size_bytes += len(body)
        if self._size_bytes > self._limit_bytes:
            self._parts = []
        elif body:
            self._parts.append(body)
