"""The plainest pass-through that aiohttp makes: server and client, nothing watched or recorded.

python -m benchmarks.gateway.passthrough_aiohttp PORT UPSTREAM
"""

import sys

import aiohttp
import uvloop
from aiohttp import web

from benchmarks.gateway.wire import HOST

_HOPS = {"host", "connection", "transfer-encoding", "content-length", "keep-alive"}


async def passed(request: web.Request) -> web.StreamResponse:
    """One request, its answer chunk by chunk."""
    session: aiohttp.ClientSession = request.app[SESSION]
    body = await request.read()
    headers = {name: text for name, text in request.headers.items() if name.lower() not in _HOPS}
    url = UPSTREAM + request.path_qs
    async with session.request(request.method, url, data=body, headers=headers) as answer:
        kept = {name: text for name, text in answer.headers.items() if name.lower() not in _HOPS}
        out = web.StreamResponse(status=answer.status, headers=kept)
        out.content_length = answer.content_length
        await out.prepare(request)
        async for chunk in answer.content.iter_any():
            await out.write(chunk)
        await out.write_eof()
        return out


SESSION = web.AppKey("session", aiohttp.ClientSession)
UPSTREAM = ""


async def _session(app: web.Application):
    app[SESSION] = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )
    yield
    await app[SESSION].close()


if __name__ == "__main__":
    UPSTREAM = sys.argv[2]
    application = web.Application()
    application.cleanup_ctx.append(_session)
    application.router.add_route("*", "/{path:.*}", passed)
    uvloop.install()
    web.run_app(application, host=HOST, port=int(sys.argv[1]), access_log=None, print=None)
