"""A backend that answers at once and clients that ask it through the gateway, beside API clients.

python -m benchmarks.sampler.load BACKEND_PORT; then a line `GATEWAY_URL API_URL` on stdin. It
prints `ready`, and the number of answers when stdin ends.
"""

import asyncio
import json
import sys

import aiohttp
from aiohttp import web

GATEWAY_CLIENTS, API_CLIENTS = 8, 2
ANSWER = {
    "id": "cmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
}
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Is the sky blue?"}]}


async def backend(port: int) -> None:
    """Answers every path alike, after a hundredth of a second."""
    body = json.dumps(ANSWER).encode()

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.01)
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()


async def clients(gateway_url: str, api_url: str) -> int:
    """Ask until stdin ends; how often an answer came."""
    answers = 0
    stopping = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal answers
        while not stopping.done():
            async with session.post(f"{gateway_url}/v1/chat/completions", json=QUESTION) as one:
                await one.read()
                answers += one.status == 200

    async def look(session: aiohttp.ClientSession) -> None:
        while not stopping.done():
            async with session.get(f"{api_url}/v1/requests?limit=50") as one:
                await one.read()
            await asyncio.sleep(0.1)

    async with aiohttp.ClientSession() as session:
        asking = [ask(session) for _ in range(GATEWAY_CLIENTS)]
        looking = [look(session) for _ in range(API_CLIENTS)]
        await asyncio.gather(*asking, *looking)
    return answers


async def main() -> None:
    await backend(int(sys.argv[1]))
    print("ready", flush=True)
    gateway_url, api_url = (await asyncio.to_thread(sys.stdin.readline)).split()
    print(await clients(gateway_url, api_url), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
