"""MELODI's gateway alone, with a recorder that throws everything away.

python -m benchmarks.gateway.unrecorded PORT UPSTREAM
"""

import asyncio
import sys

import uvloop

from benchmarks.gateway.wire import HOST
from melodi.clock import SystemClock
from melodi.gateway.app import create_gateway
from melodi.inference.request import Backend, BackendKind
from melodi.inference.timeline import RequestTimeline
from melodi.serving import bind, serving


class NoRecorder:
    """Keeps nothing."""

    def begin(self, timeline: RequestTimeline) -> None:
        pass

    def end(self, timeline: RequestTimeline) -> None:
        pass


async def main(port: str, upstream: str) -> None:
    backend = Backend(name="bench", kind=BackendKind.VLLM, url=upstream)
    gateway = create_gateway(backend, NoRecorder(), SystemClock())
    with bind(f"{HOST}:{port}") as listener:
        async with serving([(gateway, listener)]):
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
