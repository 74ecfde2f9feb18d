"""A backend says who it is, or the view says what is wrong."""

import pytest
from scripted_server import CUT, SeenRequest, Step, response, scripted

from melodi.inference.describe import ModelView, describe
from melodi.inference.request import Backend, BackendKind

ANSWERS = {
    b"/api/version": b'{"version":"0.33.0"}',
    b"/api/tags": b'{"models":[{"name":"tiny:latest","model":"tiny:latest","digest":"1135"}]}',
    b"/version": b'{"version":"0.32.0"}',
    b"/metrics": b"vllm:iteration_tokens_total_count 7\nprocess_start_time_seconds 1.7e9\n",
    b"/v1/models": b'{"data":[{"id":"tiny","owned_by":"vllm"}]}',
}


def answer(request: SeenRequest) -> list[Step]:
    """Whatever is asked of any kind."""
    return [response(ANSWERS[path_of(request)])]


def path_of(request: SeenRequest) -> bytes:
    """Without what is asked of it."""
    return request.line.split()[1].partition(b"?")[0].removesuffix(b"/")


@pytest.mark.parametrize(
    ("kind", "version", "digest"),
    [
        (BackendKind.OLLAMA, "0.33.0", "1135"),
        (BackendKind.VLLM, "0.32.0", None),
        (BackendKind.OPENAI, None, None),
    ],
)
async def test_a_backend_tells_its_version_and_models(
    kind: BackendKind, version: str | None, digest: str | None
) -> None:
    """Model names are those that records carry: without `:latest`."""
    async with scripted(answer) as server:
        view = await describe(Backend(name="b", kind=kind, url=server.url, api_key="k"))
        heads = [seen.head for seen in server.requests]
    assert (view.reachable, view.version, view.error) == (True, version, None)
    assert view.models == (ModelView(name="tiny", digest=digest),)
    assert view.metrics == (True if kind is BackendKind.VLLM else None)
    assert all(b"Authorization: Bearer k" in head for head in heads)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"vllm:num_requests_running 0\n", "no vllm:iteration_tokens_total"),
        (b"vllm:iteration_tokens_total_count 7\n", "--api-server-count 1"),
        (None, "HTTP status 404"),
    ],
)
async def test_a_vllm_whose_steps_cannot_be_told_says_why(page: bytes | None, reason: str) -> None:
    """It serves all the same: the reason is no error."""
    metrics = response(b"", status="404 Not Found") if page is None else response(page)

    def tell(request: SeenRequest) -> list[Step]:
        return [metrics] if path_of(request) == b"/metrics" else answer(request)

    async with scripted(tell) as server:
        view = await describe(Backend(name="b", kind=BackendKind.VLLM, url=server.url))
    assert (view.reachable, view.error, view.metrics) == (True, None, False)
    assert reason in view.metrics_reason


async def test_a_backend_that_is_away_says_so() -> None:
    """The view names the remedy, and nothing is raised."""
    async with scripted([CUT]) as server:
        pass
    view = await describe(Backend(name="b", kind=BackendKind.VLLM, url=server.url))
    assert (view.reachable, view.models) == (False, ())
    assert view.error == f"backend b at {server.url} is not reachable: start it or mend its url"


async def test_a_backend_of_another_kind_is_reachable_and_wrong() -> None:
    """It answers, and not to this: the kind or the key is wrong."""
    async with scripted([response(b"{}", status="404 Not Found")]) as server:
        view = await describe(Backend(name="b", kind=BackendKind.OLLAMA, url=server.url))
    assert view.reachable
    assert view.error == (
        "backend b answers /api/version with HTTP status 404: check its kind and api_key"
    )


@pytest.mark.parametrize(
    "steps",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", CUT],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", CUT],
        [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"],
        [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", CUT],
    ],
    ids=["short", "no chunk", "no gzip", "no http"],
)
@pytest.mark.parametrize("kind", list(BackendKind))
async def test_a_backend_that_answers_rubbish_is_a_view_with_an_error(
    kind: BackendKind, steps: list[Step]
) -> None:
    """Nothing is raised, whatever comes; the view says where to look."""
    async with scripted(steps) as server:
        view = await describe(Backend(name="b", kind=kind, url=server.url))
    assert view.models == ()
    assert view.error is not None
    assert "backend b" in view.error
    assert "url" in view.error or "kind" in view.error


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"models":{},"data":3,"version":[]}'])
@pytest.mark.parametrize("kind", list(BackendKind))
async def test_json_of_another_shape_gives_no_models(kind: BackendKind, body: bytes) -> None:
    """What cannot be read is left out."""
    async with scripted([response(body)]) as server:
        view = await describe(Backend(name="b", kind=kind, url=server.url))
    assert (view.reachable, view.version, view.models) == (True, None, ())


async def test_of_a_vllms_metrics_only_what_is_needed_is_asked_for() -> None:
    """The whole page takes the server six times the time, in which it serves nobody."""
    async with scripted(answer) as server:
        view = await describe(Backend(name="b", kind=BackendKind.VLLM, url=server.url))
        asked = [seen.line.split()[1] for seen in server.requests if b"/metrics" in seen.line]
    assert view.metrics is True
    assert len(asked) == 1
    assert asked[0].startswith(b"/metrics/?name")
