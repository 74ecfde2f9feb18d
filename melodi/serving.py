"""Runs ASGI applications on sockets of this process, without taking its signals."""

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from melodi.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn

App = Callable[..., Awaitable[None]]

GRACE_SECONDS = 5
KEEPALIVE_SECONDS = 5
SWITCH_SECONDS = 0.0005
"""After which a thread that works lets another one work: meters are read, answers are given, and
the interpreter's own 5 ms, for each of a dozen calls of a driver, would make a beat late."""
GARBAGE_THRESHOLDS = 5_000, 10, 100
"""Of the three generations. Python's own (700 at first) are passed every few requests."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop's event loop, which passes bytes on for less than asyncio's own."""
    import uvloop

    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.run(main)


def spare_what_stays() -> None:
    """Let the garbage collector pass over what is there once the daemon answers.

    Going through all modules again and again held up every stream for 80 ms.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def bind(address: str) -> socket.socket:
    """A listening socket on `host:port`; raises ConfigError where the address cannot be had."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it on, the body
    # of an answer waits up to 40 ms for the acknowledgement of its head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror}; stop what listens there, "
            "or choose another address"
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """The HTTP URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def serving(
    places: Iterable[tuple[App, socket.socket]], *, grace_seconds: int = GRACE_SECONDS
) -> AsyncIterator[None]:
    """Serve each app on its listening socket while the context lasts.

    At its end all of them together take no new work, and their streams share one grace time.
    """
    running: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []
    try:
        for app, listener in places:
            server = _server(app, grace_seconds)
            # The server closes what it is given; the caller's socket stays open for a next one.
            task = asyncio.create_task(server.serve(sockets=[listener.dup()]))
            running.append((server, task))
        for server, task in running:
            await _started(server, task)
        yield
    finally:
        for server, _ in running:
            server.should_exit = True
        await asyncio.gather(*(task for _, task in running))


def _server(app: App, grace_seconds: int) -> "uvicorn.Server":
    import uvicorn

    from melodi.heads import BoundedHttp

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    options: dict[str, Any] = {
        "access_log": False,
        "http": BoundedHttp,
        "log_config": None,
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "h11_max_incomplete_event_size": 64 * 1024,
        "timeout_keep_alive": KEEPALIVE_SECONDS,
        "timeout_graceful_shutdown": grace_seconds,
    }
    return Server(uvicorn.Config(app, **options))


async def _started(server: "uvicorn.Server", task: asyncio.Task[None]) -> None:
    while not server.started:
        if task.done():
            await task
            raise ConfigError("the server ended before it had begun; see the log")
        await asyncio.sleep(0.005)
