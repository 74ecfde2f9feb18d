"""A backend tells which models it holds, or that cannot be known."""

import pytest
from scripted_server import CUT, SeenRequest, Step, response, scripted

from melodi.inference.loaded import LoadedModel, loaded_models
from melodi.inference.request import Backend, BackendKind

ANSWERS = {
    b"/api/ps": b'{"models":[{"name":"tiny:latest","size":9,"size_vram":7},{"name":"q:4b"},{}]}',
    b"/v1/models": b'{"data":[{"id":"tiny"},{"id":"lora"}]}',
}


def answer(request: SeenRequest) -> list[Step]:
    return [response(ANSWERS[request.line.split()[1]])]


@pytest.mark.parametrize(
    ("kind", "models"),
    [
        (BackendKind.OLLAMA, (LoadedModel("tiny", 7), LoadedModel("q:4b", None))),
        (BackendKind.VLLM, (LoadedModel("tiny", None), LoadedModel("lora", None))),
        (BackendKind.OPENAI, (LoadedModel("tiny", None), LoadedModel("lora", None))),
    ],
)
async def test_a_backend_tells_what_it_holds(
    kind: BackendKind, models: tuple[LoadedModel, ...]
) -> None:
    """Ollama with the memory of GPUs that each takes; others hold what they serve."""
    async with scripted(answer) as server:
        backend = Backend(name="b", kind=kind, url=server.url, api_key="k")
        assert await loaded_models(backend) == models
        assert b"Authorization: Bearer k" in server.requests[0].head


@pytest.mark.parametrize("steps", [[CUT], [response(b"{}", status="500 Oops")]])
async def test_one_that_answers_badly_is_not_known(steps: list[Step]) -> None:
    """It may hold anything."""
    async with scripted(steps) as server:
        assert await loaded_models(Backend(name="b", kind=BackendKind.VLLM, url=server.url)) is None


async def test_one_that_does_not_run_holds_nothing() -> None:
    """Nobody listens there."""
    async with scripted([CUT]) as server:
        backend = Backend(name="b", kind=BackendKind.OLLAMA, url=server.url)
    assert await loaded_models(backend) == ()
