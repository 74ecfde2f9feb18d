"""OpenAI's API in both flavours, with OpenAI's own client and as bytes."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from melodi.simulator.launch import RunningSimulator

MODEL = "simulated"
HI = [{"role": "user", "content": "hi"}]
INCLUDE = {"include_usage": True}


@pytest.fixture
def vllm(vllm_server: RunningSimulator) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, at a simulated vLLM."""
    url = vllm_server.url + "/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def _post(server: RunningSimulator, path: str, **body: object) -> httpx2.Response:
    return httpx2.post(server.url + path, json={"model": MODEL, **body})


def _events(response: httpx2.Response) -> list[dict[str, Any]]:
    """The events of a stream, which must end with `[DONE]`."""
    *events, done, nothing = response.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def _chat(server: RunningSimulator, **body: object) -> list[dict[str, Any]]:
    body = {"messages": HI, "max_tokens": 3, "stream": True, **body}
    return _events(_post(server, "/v1/chat/completions", **body))


def test_openais_client_reads_a_vllm_answer(vllm: openai.OpenAI) -> None:
    """Text, reason and usage are where the client looks for them."""
    answer = vllm.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], max_completion_tokens=4
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4


def test_openais_client_reads_completions_and_embeddings(vllm: openai.OpenAI) -> None:
    """Completions carry text; embeddings come as the client asks for them, packed."""
    completion = vllm.completions.create(model=MODEL, prompt="one two three", max_tokens=2)
    assert completion.choices[0].text
    vectors = vllm.embeddings.create(model=MODEL, input=["one two", "three"])
    assert [len(entry.embedding) for entry in vectors.data] == [64, 64]
    assert sum(value**2 for value in vectors.data[0].embedding) == pytest.approx(1.0)
    assert vectors.usage.prompt_tokens == 4
    assert [model.owned_by for model in vllm.models.list()] == ["vllm"]


def test_a_vllm_stream_has_role_deltas_reason_and_then_usage(
    vllm_server: RunningSimulator,
) -> None:
    """Role first, a delta per token, the reason on the last, usage on one without choices."""
    role, *deltas, usage = _chat(vllm_server, stream_options=INCLUDE)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [event["choices"][0]["finish_reason"] for event in deltas] == [None, None, "length"]
    assert all("usage" not in event for event in (role, *deltas))
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["metrics"]["time_to_first_token_ms"] > 8


def test_the_fingerprint_is_on_the_last_vllm_event(vllm_server: RunningSimulator) -> None:
    """It stands on the usage event where there is one, else on the last delta."""
    with_usage = _chat(vllm_server, stream_options=INCLUDE)
    without = _chat(vllm_server)
    assert "choices" in without[-1]
    assert without[-1]["choices"][0]["finish_reason"] == "length"
    for events in (with_usage, without):
        assert ["system_fingerprint" in event for event in events] == [False] * (
            len(events) - 1
        ) + [True]


def test_continuous_usage_counts_on_every_event(vllm_server: RunningSimulator) -> None:
    """With continuous_usage_stats each event says how many tokens there are so far."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = _chat(vllm_server, stream_options=options)
    assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 2, 3, 3]


def test_cached_prompt_tokens_are_told(vllm_server: RunningSimulator) -> None:
    """The second time a long prompt is asked, whole blocks of it are cached."""
    prompt = "a long prompt to be seen twice " * 10
    answers = [
        _post(vllm_server, "/v1/completions", prompt=prompt, max_tokens=1).json() for _ in range(2)
    ]
    details = [answer["usage"]["prompt_tokens_details"] for answer in answers]
    tokens = answers[0]["usage"]["prompt_tokens"]
    assert [entry["cached_tokens"] for entry in details] == [0, (tokens - 1) // 16 * 16]
    assert details[0]["created_cache_tokens"] == tokens // 16 * 16


def test_limits_bend_the_length_of_an_answer(vllm_server: RunningSimulator) -> None:
    """min_tokens lengthens, ignore_eos runs to the limit, else the model stops by itself."""

    def tokens(**body: object) -> tuple[int, str]:
        answer = _post(vllm_server, "/v1/completions", prompt="tiny", **body).json()
        return answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]

    natural, reason = tokens()
    assert 20 <= natural <= 200
    assert reason == "stop"
    assert tokens(min_tokens=natural + 5) == (natural + 5, "stop")
    assert tokens(ignore_eos=True, max_tokens=natural + 9) == (natural + 9, "length")
    assert tokens(max_tokens=natural + 9) == (natural, "stop")


def test_the_clients_request_id_names_answer_and_truth(vllm_server: RunningSimulator) -> None:
    """X-Request-Id becomes part of the body's id, by which the simulator tells the truth."""
    for path, body, name in (
        ("/v1/chat/completions", {"messages": HI}, "chatcmpl-abc"),
        ("/v1/completions", {"prompt": "x"}, "cmpl-abc-0"),
    ):
        answer = httpx2.post(
            vllm_server.url + path,
            json={"model": MODEL, "max_tokens": 2, **body},
            headers={"X-Request-Id": "abc"},
        )
        assert answer.json()["id"] == name
        truth = httpx2.get(f"{vllm_server.url}/simulator/requests/{name}").json()
        assert truth["output_tokens"] == 2
        number = answer.headers["x-simulator-id"]
        same = httpx2.get(f"{vllm_server.url}/simulator/requests/{number}").json()
        assert {**same, "id": name} == truth


@pytest.mark.parametrize(
    ("body", "status", "kind", "param"),
    [
        ({"model": "none", "prompt": "x"}, 404, "NotFoundError", "model"),
        ({"prompt": "x", "max_tokens": 99_999}, 400, "BadRequestError", "max_tokens"),
        ({"prompt": "x " * 9_000}, 400, "BadRequestError", "input_tokens"),
        ({"prompt": ""}, 400, "BadRequestError", "prompt"),
        ({"prompt": "x", "max_tokens": 0}, 400, "BadRequestError", "max_tokens"),
        ({"prompt": 5}, 400, "Bad Request", "prompt"),
        ({"prompt": "x", "n": 2}, 400, "Bad Request", "n"),
    ],
)
def test_vllm_errors_have_an_integer_code(
    vllm_server: RunningSimulator, body: dict[str, object], status: int, kind: str, param: str
) -> None:
    """Type, parameter and code stand where vLLM puts them."""
    response = _post(vllm_server, "/v1/completions", **body)
    error = response.json()["error"]
    assert response.status_code == status
    assert (error["type"], error["param"], error["code"]) == (kind, param, status)
    assert error["message"]


def test_broken_json_and_unknown_routes_are_refused(vllm_server: RunningSimulator) -> None:
    """JSON that cannot be read is 400, a route that is not there 404 with `detail`."""
    broken = httpx2.post(vllm_server.url + "/v1/completions", content=b"{")
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "Bad Request")
    missing = httpx2.get(vllm_server.url + "/api/tags")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})


def test_an_over_long_embedding_input_is_refused(vllm_server: RunningSimulator) -> None:
    """An input beyond the context is an error, as an over-long prompt is."""
    response = _post(vllm_server, "/v1/embeddings", input="x " * 9_000)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "input_tokens"


def test_vllm_tells_its_health_and_counts(vllm_server: RunningSimulator) -> None:
    """Token counters and the steps' histogram grow by what a request used."""

    def scrape() -> dict[str, float]:
        text = httpx2.get(vllm_server.url + "/metrics").text
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#"]
        return {name.split("{")[0]: float(value) for name, value in rows}

    before = scrape()
    _post(vllm_server, "/v1/completions", prompt="one two three", max_tokens=4)
    after = scrape()
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown["vllm:prompt_tokens_total"] == 4
    assert grown["vllm:generation_tokens_total"] == 4
    assert grown["vllm:iteration_tokens_total_count"] == 4
    assert grown["vllm:iteration_tokens_total_sum"] == 4 + 3
    assert after["vllm:num_requests_running"] == 0
    assert httpx2.get(vllm_server.url + "/health").content == b""
    assert httpx2.get(vllm_server.url + "/version").json() == {"version": "0.32.0"}


def test_ollamas_compatible_stream_is_as_bare_as_ollamas(ollama_server: RunningSimulator) -> None:
    """Every chunk has role and fingerprint; usage is three numbers, and only if asked for."""
    *deltas, end, usage = _chat(ollama_server, stream_options=INCLUDE)
    assert {event["choices"][0]["delta"]["role"] for event in deltas} == {"assistant"}
    assert end["choices"][0]["finish_reason"] == "length"
    assert {event["system_fingerprint"] for event in (*deltas, end, usage)} == {"fp_ollama"}
    assert set(usage["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert all("usage" not in event for event in _chat(ollama_server))


def test_ollamas_completion_chunks_carry_a_usage_of_zeros(ollama_server: RunningSimulator) -> None:
    """With include_usage every earlier completion chunk has a zero usage object."""
    response = _post(
        ollama_server,
        "/v1/completions",
        prompt="x",
        max_tokens=2,
        stream=True,
        stream_options=INCLUDE,
    )
    totals = [event["usage"]["total_tokens"] for event in _events(response)]
    assert totals == [0, 0, 0, 3]


def test_ollamas_compatible_errors_are_objects(ollama_server: RunningSimulator) -> None:
    """Under /v1 an error is an object with a null code, and an id has three digits at most."""
    response = _post(ollama_server, "/v1/chat/completions", model="none", messages=HI)
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "model 'none' not found",
        "type": "not_found_error",
        "param": None,
        "code": None,
    }
    answer = _post(ollama_server, "/v1/chat/completions", messages=HI, max_tokens=1)
    assert int(answer.json()["id"].removeprefix("chatcmpl-")) < 1000
