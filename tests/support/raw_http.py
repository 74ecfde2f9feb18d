"""HTTP as bytes on a socket: what was sent is what was written, what came is what was read."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from waiting import PATIENCE_SECONDS

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding"}
OWN = {b"x-melodi-request-id"}


@dataclass(frozen=True)
class RawAnswer:
    """Status, header fields in order with names in lower case, and the body without framing."""

    status: int
    headers: Headers
    body: bytes
    whole: bool

    @property
    def passed_on(self) -> tuple[int, Headers, bytes, bool]:
        """What a proxy that changes nothing has to give back as it was."""
        names = HOP_BY_HOP | OWN
        return self.status, [one for one in self.headers if one[0] not in names], *self._body

    @property
    def _body(self) -> tuple[bytes, bool]:
        return self.body, self.whole


def ask(
    url: str,
    method: str,
    target: str,
    *,
    headers: Headers,
    pieces: Iterable[bytes] | None,
    chunked: bool,
) -> RawAnswer:
    """One request on a connection of its own; `pieces` None: without a body."""
    parts = urlsplit(url)
    fields = [(b"Host", parts.netloc.encode()), (b"Connection", b"close"), *headers]
    body = None if pieces is None else list(pieces)
    if body is not None:
        length = (b"Content-Length", b"%d" % sum(map(len, body)))
        fields.append((b"Transfer-Encoding", b"chunked") if chunked else length)
    head = f"{method} {target} HTTP/1.1\r\n".encode()
    head += b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"
    with socket.create_connection(
        (parts.hostname, parts.port), timeout=PATIENCE_SECONDS
    ) as connection:
        connection.sendall(head)
        for piece in body or ():
            if piece or not chunked:
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if body is not None and chunked:
            connection.sendall(b"0\r\n\r\n")
        return _read(connection, method)


def _read(connection: socket.socket, method: str) -> RawAnswer:
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split(b" ", 2)[1])
        headers: Headers = []
        while line := stream.readline().strip(b"\r\n"):
            name, _, value = line.partition(b":")
            headers.append((name.lower(), value.strip(b" \t")))
        fields = dict(headers)
        if method == "HEAD" or status in (204, 304):
            return RawAnswer(status, headers, b"", True)
        if fields.get(b"transfer-encoding") == b"chunked":
            return RawAnswer(status, headers, *_chunks(stream))
        if b"content-length" in fields:
            length = int(fields[b"content-length"])
            body = stream.read(length)
            return RawAnswer(status, headers, body, len(body) == length)
        return RawAnswer(status, headers, stream.read(), True)


def _chunks(stream: "socket.SocketIO") -> tuple[bytes, bool]:
    body = bytearray()
    while line := stream.readline():
        size = int(line, 16)
        data = stream.read(size)
        stream.readline()
        if size == 0:
            return bytes(body), True
        body += data
        if len(data) < size:
            break
    return bytes(body), False
