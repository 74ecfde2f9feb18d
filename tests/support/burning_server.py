"""A small OpenAI server whose work is done by a child; run, it prints its port and that child.

Every completion burns CPU time in the child for as many seconds as its prompt says.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

WORKER = """
import sys, time
for line in sys.stdin:
    end = time.monotonic() + float(line)
    while time.monotonic() < end:
        pass
    print(flush=True)
"""


@dataclass(frozen=True)
class BurningServer:
    """A server that runs: where it answers, and its two processes."""

    url: str
    pid: int
    worker: int


@contextlib.contextmanager
def burning_server() -> Iterator[BurningServer]:
    """A server in processes of its own, until the context ends."""
    command = [sys.executable, Path(__file__)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, worker = process.stdout.readline().split()
        try:
            yield BurningServer(f"http://127.0.0.1:{port}", process.pid, int(worker))
        finally:
            process.kill()  # its worker ends at the end of its input


@contextlib.contextmanager
def burner() -> Iterator[int]:
    """A process that burns CPU on its own account; gives its pid."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def serve() -> None:
    """Answer on a free port of 127.0.0.1 until killed."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({"object": "list", "data": [{"id": "burner", "object": "model"}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert worker.stdin is not None
            assert worker.stdout is not None
            print(asked["prompt"], file=worker.stdin, flush=True)
            worker.stdout.readline()
            self._answer(
                {
                    "id": "cmpl-1",
                    "object": "text_completion",
                    "created": int(time.time()),
                    "model": "burner",
                    "choices": [{"index": 0, "text": "warm", "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 5, "completion_tokens": 50, "total_tokens": 55},
                }
            )

        def _answer(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], worker.pid, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    serve()
