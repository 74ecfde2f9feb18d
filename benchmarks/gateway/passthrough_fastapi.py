"""The usual pass-through: a FastAPI route that streams what httpx gets; nothing is recorded.

python -m benchmarks.gateway.passthrough_fastapi PORT UPSTREAM
"""

import contextlib
import sys
from collections.abc import AsyncIterator

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from benchmarks.gateway.wire import HOST

_HOPS = {"host", "connection", "transfer-encoding", "keep-alive"}


def create(upstream: str) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        app.state.client = httpx.AsyncClient(base_url=upstream, timeout=None, limits=limits)
        yield
        await app.state.client.aclose()

    app = FastAPI(lifespan=lifespan)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def passed(request: Request, path: str) -> StreamingResponse:
        client: httpx.AsyncClient = app.state.client
        headers = {name: text for name, text in request.headers.items() if name not in _HOPS}
        body = await request.body()
        asked = client.build_request(request.method, f"/{path}", headers=headers, content=body)
        answer = await client.send(asked, stream=True)
        kept = {name: text for name, text in answer.headers.items() if name.lower() not in _HOPS}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose)
        )

    return app


if __name__ == "__main__":
    uvicorn.run(create(sys.argv[2]), host=HOST, port=int(sys.argv[1]), log_config=None)
