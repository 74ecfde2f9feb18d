"""Ollama's own API, with its own client and as bytes."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import ollama
import pytest
from waiting import wait_for

from melodi.simulator.jobs import Submission
from melodi.simulator.launch import RunningSimulator
from melodi.simulator.ollama import MAX_QUEUE

MODEL = "simulated"
DURATIONS = {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}


@pytest.fixture
def client(ollama_server: RunningSimulator) -> Iterator[ollama.Client]:
    """Ollama's own Python client."""
    with ollama.Client(ollama_server.url) as client:
        yield client


def _post(server: RunningSimulator, path: str, **body: object) -> httpx2.Response:
    return httpx2.post(server.url + path, json={"model": MODEL, **body})


def _lines(response: httpx2.Response) -> list[dict[str, Any]]:
    assert response.content.endswith(b"\n")
    return [json.loads(line) for line in response.content.splitlines()]


def test_generate_streams_a_line_per_token_and_then_the_counts(
    ollama_server: RunningSimulator,
) -> None:
    """Streaming is the default; the last line has done, reason, context, counts, nanoseconds."""
    response = _post(ollama_server, "/api/generate", prompt="one two", options={"num_predict": 3})
    assert response.headers["content-type"] == "application/x-ndjson"
    *lines, last = _lines(response)
    assert [set(line) for line in lines] == [{"model", "created_at", "response", "done"}] * 3
    assert all(line["response"] and line["done"] is False for line in lines)
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "length")
    assert (last["prompt_eval_count"], last["eval_count"], len(last["context"])) == (2, 3, 5)
    parts = last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
    assert 0 < parts <= last["total_duration"]
    assert last["prompt_eval_duration"] % 1_000 == last["eval_duration"] % 1_000 == 0


def test_without_stream_one_object_has_all(ollama_server: RunningSimulator) -> None:
    """The same text comes in one JSON body with a length, after all is done."""
    options = {"num_predict": 4}
    streamed = _post(ollama_server, "/api/generate", prompt="a b c", options=options)
    text = "".join(line["response"] for line in _lines(streamed))
    whole = _post(ollama_server, "/api/generate", prompt="a b c", options=options, stream=False)
    assert whole.headers["content-type"] == "application/json; charset=utf-8"
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert whole.json()["response"] == text
    assert set(whole.json()) >= DURATIONS


def test_raw_generation_hands_back_no_context(ollama_server: RunningSimulator) -> None:
    """`context` is left out with `raw`."""
    response = _post(
        ollama_server,
        "/api/generate",
        prompt="x",
        raw=True,
        stream=False,
        options={"num_predict": 1},
    )
    assert "context" not in response.json()


def test_a_model_left_alone_ends_by_itself(client: ollama.Client) -> None:
    """Without num_predict the answer stops at its own length, between 20 and 200 tokens."""
    answer = client.chat(MODEL, [{"role": "user", "content": "say 7"}])
    assert answer.done_reason == "stop"
    assert 20 <= (answer.eval_count or 0) <= 200
    assert answer.message.role == "assistant"


def test_chat_streams_messages(client: ollama.Client) -> None:
    """Each line has a message of the assistant; the last one has the counts."""
    stream = client.chat(
        MODEL, [{"role": "user", "content": "hi"}], stream=True, options={"num_predict": 2}
    )
    *chunks, last = list(stream)
    assert [bool(chunk.message.content) for chunk in chunks] == [True, True]
    assert (last.message.content, last.done, last.eval_count) == ("", True, 2)


def test_embedding_gives_vectors_and_counts(client: ollama.Client) -> None:
    """One vector per input, prompt tokens counted, no decode figures."""
    answer = client.embed(MODEL, ["one two", "three"])
    assert len(answer.embeddings) == 2
    assert answer.prompt_eval_count == 4
    assert answer.eval_count is None


def test_the_wait_for_a_slot_is_in_no_duration_but_the_total(
    ollama_server: RunningSimulator,
) -> None:
    """With one slot the second request's parts are its own work; queueing is in the total."""

    def ask(word: str) -> dict[str, Any]:
        body = {"prompt": word, "stream": False, "options": {"num_predict": 20}}
        answer: dict[str, Any] = _post(ollama_server, "/api/generate", **body).json()
        return answer

    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(ask, ("first", "second")))
    slow = max(answers, key=lambda answer: int(answer["total_duration"]))
    parts = slow["load_duration"] + slow["prompt_eval_duration"] + slow["eval_duration"]
    assert slow["total_duration"] - parts > slow["eval_duration"] / 2


def test_an_empty_prompt_loads_and_keep_alive_0_unloads(
    client: ollama.Client, ollama_server: RunningSimulator
) -> None:
    """Both answers are plain, without counts; /api/ps follows."""
    unloaded = _post(ollama_server, "/api/generate", keep_alive=0)
    assert unloaded.json()["done_reason"] == "unload"
    assert client.ps().models == []
    loaded = _post(ollama_server, "/api/chat", keep_alive="10m")
    assert loaded.json()["done_reason"] == "load"
    assert loaded.json()["message"] == {"role": "assistant", "content": ""}
    assert not DURATIONS & set(loaded.json())
    (entry,) = client.ps().models
    assert (entry.name, entry.size, entry.context_length) == (
        "simulated:latest",
        entry.size_vram,
        8192,
    )
    warm = client.generate(MODEL, "quick", options={"num_predict": 1})
    assert 0 < (warm.load_duration or 0) < 100_000_000


def test_a_cold_request_reports_its_load(client: ollama.Client) -> None:
    """Another num_ctx means loading anew: a tenth of a second here, and its joules apart."""
    answer = client.generate(MODEL, "cold", options={"num_predict": 1, "num_ctx": 512})
    assert (answer.load_duration or 0) >= 100_000_000


def test_an_over_long_prompt_is_cut_without_a_word(client: ollama.Client) -> None:
    """Past num_ctx the prompt keeps its end, half the context and two tokens."""
    answer = client.generate(MODEL, "word " * 2000, options={"num_predict": 1, "num_ctx": 1024})
    assert answer.prompt_eval_count == 514


def test_listings_name_what_is_served(
    client: ollama.Client, ollama_server: RunningSimulator
) -> None:
    """tags, show and version answer; names in listings carry their tag."""
    assert [model.model for model in client.list().models] == ["simulated:latest", "other:latest"]
    assert client.show("simulated:latest").capabilities == ["completion", "embedding"]
    assert httpx2.get(ollama_server.url + "/api/version").json() == {"version": "0.33.0"}
    assert httpx2.get(ollama_server.url).text == "Ollama is running"


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "none", "prompt": "x"}, 404, "model 'none' not found"),
        ({"prompt": "x"}, 400, "model is required"),
        ({"model": MODEL, "prompt": 5}, 400, "prompt: Input should be a valid string"),
        (
            {"model": MODEL, "prompt": "x", "options": {"num_predict": "2"}},
            500,
            'option "num_predict" must be of type integer',
        ),
        (
            {"model": MODEL, "prompt": "x", "keep_alive": "soon"},
            400,
            'time: invalid duration "soon"; write it as 10m or 1h30m',
        ),
    ],
)
def test_errors_are_plain_strings(
    ollama_server: RunningSimulator, body: dict[str, object], status: int, error: str
) -> None:
    """What Ollama refuses is refused with its status and an object with one string."""
    response = httpx2.post(ollama_server.url + "/api/generate", json=body)
    assert (response.status_code, response.json()) == (status, {"error": error})


def test_unknown_routes_and_methods_are_plain_text(ollama_server: RunningSimulator) -> None:
    """404 and 405 have text bodies."""
    missing = httpx2.get(ollama_server.url + "/api/nothing")
    assert (missing.status_code, missing.text) == (404, "404 page not found")
    assert httpx2.get(ollama_server.url + "/api/chat").status_code == 405


def test_a_full_queue_is_said_to_be_full(ollama_server: RunningSimulator) -> None:
    """Past 512 waiting requests the next is refused with 503."""
    _post(ollama_server, "/api/generate", prompt="")
    core, now_ns = ollama_server.core, time.monotonic_ns()
    loaded = core.loaded(now_ns)
    assert loaded is not None
    queued = Submission(
        model=loaded.model,
        context_tokens=loaded.context_tokens,
        prompt=range(10),
        output_tokens=8_000,
    )
    ids = [core.submit(queued, now_ns) for _ in range(MAX_QUEUE + 1)]
    refused = _post(ollama_server, "/api/generate", prompt="x")
    for request in reversed(ids):
        core.cancel(request, now_ns)
    assert (refused.status_code, set(refused.json())) == (503, {"error"})
    assert refused.json()["error"].startswith("server busy")


def test_unknown_options_are_ignored(client: ollama.Client) -> None:
    """An option that Ollama does not know changes nothing."""
    answer = client.generate(MODEL, "x", options={"num_predict": 1, "magic": "yes"})
    assert answer.eval_count == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_request(
    ollama_server: RunningSimulator, stream: bool
) -> None:
    """Streamed or not, a closed connection cancels in the engine; the slot is free again."""
    core = ollama_server.core
    cancelled = core.totals().finished.get("cancelled", 0)
    body = {"model": MODEL, "prompt": "leave", "stream": stream, "options": {"num_predict": 99}}
    content = json.dumps(body).encode()
    head = f"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    address = httpx2.URL(ollama_server.url)
    with socket.create_connection((address.host, address.port or 0)) as connection:
        connection.sendall(head.encode() + content)
        wait_for(lambda: core.totals().running == 1)
    wait_for(lambda: core.totals().running == 0)
    assert core.totals().finished["cancelled"] == cancelled + 1
