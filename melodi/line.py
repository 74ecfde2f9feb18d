"""The line between two processes of one MELODI: messages over a pair of sockets."""

import asyncio
import pickle
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

_LENGTH = struct.Struct("!Q")


class Line(asyncio.Protocol):
    """One end of the line; belongs to an event loop.

    A message is what pickle can carry: the other end is a process of our own. `on_message` is
    called with each, `on_end` once, when no more will come.
    """

    def __init__(self, on_message: Callable[[Any], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._heard = bytearray()
        self._over = asyncio.Event()

    @classmethod
    async def on(
        cls, end: socket.socket, on_message: Callable[[Any], None], on_end: Callable[[], None]
    ) -> "Line":
        """The line with this end, which it closes in time."""
        loop = asyncio.get_running_loop()
        _, line = await loop.create_unix_connection(lambda: cls(on_message, on_end), sock=end)
        return line

    @property
    def unsent_bytes(self) -> int:
        """What the other end has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, message: object) -> None:
        """Send without waiting; nothing happens where the line has ended."""
        if self._transport is None or self._transport.is_closing():
            return
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._transport.writelines((_LENGTH.pack(len(data)), data))

    async def close(self, *, patience_seconds: float = 0.0) -> None:
        """End the line; what the other end has not taken by then is lost."""
        if self._transport is None or self._over.is_set():
            return
        self._transport.close()
        try:
            await asyncio.wait_for(self._over.wait(), patience_seconds)
        except TimeoutError:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        begin = 0
        while len(self._heard) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._heard, begin)
            end = begin + _LENGTH.size + length
            if len(self._heard) < end:
                break
            message = pickle.loads(memoryview(self._heard)[begin + _LENGTH.size : end])  # noqa: S301
            begin = end
            self._on_message(message)
        if begin:
            del self._heard[:begin]

    def connection_lost(self, _: Exception | None) -> None:
        self._over.set()
        self._on_end()
