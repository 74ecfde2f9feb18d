"""A bare server of GET /simulator/power over HTTP/1.1, with replies that a test sets."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def gpu(**changes: Any) -> dict[str, Any]:
    """One simulated GPU as the simulator tells it."""
    return {
        "name": "gpu:SIMULATED-0",
        "kind": "gpu",
        "scope": "gpu",
        "source": "simulated:counter",
        "refresh_ns": 100_000_000,
        "max_power_watts": 770.0,
        "energy_uj": 1_000_000,
        "power_uw": 250_000_000,
    } | changes


class PowerServer:
    """What it answers, and how many connections it was asked over."""

    def __init__(self) -> None:
        self.domains: list[dict[str, Any]] = [gpu()]
        self.body: bytes | None = None
        """Sent instead of the domains where set."""
        self.status = 200
        self.answering = threading.Event()
        """Clear it, and requests wait until it is set again."""
        self.answering.set()
        self.connections = 0
        self.url = ""
        self.sockets: list[socket.socket] = []

    def reply(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps({"at_ns": 0, "domains": self.domains}).encode()

    def cut_connections(self) -> None:
        """Close every connection that is open, as a server that ends does."""
        for connection in self.sockets:
            connection.shutdown(socket.SHUT_RDWR)
        self.sockets.clear()


@contextmanager
def power_server() -> Iterator[PowerServer]:
    """A server on a free port of 127.0.0.1."""
    state = PowerServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            state.connections += 1
            state.sockets.append(self.connection)

        def do_GET(self) -> None:
            state.answering.wait()
            found = self.path == "/simulator/power"
            body = state.reply() if found else b"{}"
            self.send_response(state.status if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        state.answering.set()
        server.shutdown()
        thread.join()
        server.server_close()
