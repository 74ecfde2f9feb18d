"""The clients that people use see through the gateway what they see without it."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import ollama
import openai
import pytest
from scripted_server import MemoryRecorder, served
from waiting import PATIENCE_SECONDS

from melodi.clock import SystemClock
from melodi.energy.record import Status
from melodi.gateway.app import create_gateway
from melodi.inference.request import Backend, BackendKind
from melodi.inference.timeline import RequestTimeline
from melodi.simulator.launch import simulator_in_thread
from melodi.simulator.settings import SimulatorSettings

HI = [{"role": "user", "content": "Say something about the sea."}]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "look_up", "description": "Look up", "parameters": {"type": "object"}},
    }
]
CLOCKS = frozenset(
    {"created", "created_at", "expires_at", "total_duration", "load_duration",
     "prompt_eval_duration", "eval_duration", "modified_at", "system_fingerprint"}
)  # fmt: skip
"""What is of the moment and not of the answer; and what vLLM leaves off the last event of a stream
whose usage it tells."""


@dataclass
class Two:
    """Two servers that are alike, one asked directly and one through the gateway."""

    kind: str
    direct: str
    gateway: str
    recorder: MemoryRecorder
    urls: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.urls = (self.direct, self.gateway)

    def order_fault(self, **wish: object) -> None:
        for url in self.urls:
            httpx2.post(f"{url}/simulator/faults", json=wish).raise_for_status()

    def timelines(self, count: int) -> list[RequestTimeline]:
        return asyncio.run(self.recorder.all(count))


@pytest.fixture(params=["ollama", "vllm"])
def two(request: pytest.FixtureRequest) -> Iterator[Two]:
    settings = SimulatorSettings(load_seconds=0.0)
    recorder = MemoryRecorder()
    with ExitStack() as stack:
        direct, behind = (
            stack.enter_context(simulator_in_thread(request.param, settings=settings))
            for _ in range(2)
        )
        backend = Backend(name="b", kind=BackendKind(request.param), url=behind.url)
        url = stack.enter_context(served(create_gateway(backend, recorder, SystemClock())))
        yield Two(request.param, direct.url, url, recorder)


def plain(value: Any) -> Any:
    """An answer as plain values, without what is of the moment."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name not in CLOCKS}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, all of it where it is a stream; an error with its words."""
    try:
        value = call()
        if hasattr(value, "__next__") or isinstance(value, openai.Stream):
            value = list(value)
    except (ollama.ResponseError, openai.APIError, httpx2.TransportError) as error:
        return type(error).__name__, str(error), getattr(error, "status_code", None)
    return plain(value)


SHORT = {"num_predict": 6}

OLLAMA_CALLS: dict[str, Callable[[ollama.Client], Any]] = {
    "list": lambda c: c.list(),
    "show": lambda c: c.show("simulated"),
    "ps, nothing loaded": lambda c: c.ps(),
    "generate": lambda c: c.generate("simulated", "Hello", options=SHORT),
    "ps": lambda c: c.ps(),
    "generate, stream": lambda c: c.generate("simulated", "Hello you", stream=True, options=SHORT),
    "generate, raw": lambda c: c.generate(
        "simulated", "Hello", raw=True, options=SHORT | {"seed": 1}
    ),
    "generate, json": lambda c: c.generate("simulated", "List", format="json", options=SHORT),
    "generate, system": lambda c: c.generate(
        "simulated", "Hello", system="Be brief", options=SHORT
    ),
    "load": lambda c: c.generate("simulated", keep_alive="1m"),
    "chat": lambda c: c.chat("simulated", HI, options=SHORT),
    "chat, stream": lambda c: c.chat("simulated", HI, options=SHORT, stream=True),
    "chat, short": lambda c: c.chat("simulated", HI, options={"num_predict": 2}, stream=True),
    "chat, tools": lambda c: c.chat("simulated", HI, options=SHORT, tools=TOOLS),
    "chat, tools, stream": lambda c: c.chat(
        "simulated", HI, options=SHORT, tools=TOOLS, stream=True
    ),
    "chat, json": lambda c: c.chat(
        "simulated", HI, options=SHORT, format={"type": "object"}, stream=True
    ),
    "embed": lambda c: c.embed("simulated", ["one", "two words"]),
    "embeddings": lambda c: c.embeddings("simulated", "one two"),
    "pull": lambda c: c.pull("simulated"),
    "pull, stream": lambda c: c.pull("simulated", stream=True),
    "pull, unknown": lambda c: c.pull("nothing", stream=True),
    "copy": lambda c: c.copy("simulated", "mine"),
    "create": lambda c: c.create("ours", from_="mine", stream=True),
    "list, more": lambda c: c.list(),
    "chat with a copy": lambda c: c.chat("ours", HI, options=SHORT),
    "delete": lambda c: [c.delete("mine"), c.delete("ours")],
    "delete, unknown": lambda c: c.delete("mine"),
    "copy, unknown": lambda c: c.copy("mine", "yours"),
    "unknown model": lambda c: c.chat("mine", HI),
    "unknown model, stream": lambda c: c.chat("mine", HI, stream=True),
    "wrong option": lambda c: c.generate("simulated", "x", options={"num_ctx": "many"}),
    "unload": lambda c: c.generate("simulated", keep_alive=0),
}

OPENAI_CALLS: dict[str, Callable[[openai.OpenAI], Any]] = {
    "models": lambda c: c.models.list(),
    "chat": lambda c: c.chat.completions.create(model="simulated", messages=HI, max_tokens=6),
    "chat, stream": lambda c: c.chat.completions.create(
        model="simulated", messages=HI, max_tokens=6, stream=True
    ),
    "chat, usage": lambda c: c.chat.completions.create(
        model="simulated",
        messages=HI,
        max_tokens=6,
        stream=True,
        stream_options={"include_usage": True},
    ),
    "chat, short": lambda c: c.chat.completions.create(
        model="simulated", messages=HI, max_tokens=2
    ),
    "chat, tools": lambda c: c.chat.completions.create(
        model="simulated", messages=HI, max_tokens=6, tools=TOOLS
    ),
    "chat, tools, stream": lambda c: c.chat.completions.create(
        model="simulated", messages=HI, max_tokens=6, tools=TOOLS, stream=True
    ),
    "chat, json": lambda c: c.chat.completions.create(
        model="simulated", messages=HI, max_tokens=6, response_format={"type": "json_object"}
    ),
    "completion": lambda c: c.completions.create(model="simulated", prompt="One", max_tokens=5),
    "completion, stream": lambda c: c.completions.create(
        model="simulated", prompt="One", max_tokens=5, stream=True
    ),
    "embeddings": lambda c: c.embeddings.create(model="simulated", input=["one", "two"]),
    "response": lambda c: c.responses.create(model="simulated", input="Hello", max_output_tokens=6),
    "response, short": lambda c: c.responses.create(
        model="simulated", input="Hello", max_output_tokens=3
    ),
    "response, stream": lambda c: c.responses.create(
        model="simulated", input="Hello", max_output_tokens=6, stream=True
    ),
    "unknown model": lambda c: c.chat.completions.create(model="none", messages=HI, max_tokens=6),
    "unknown model, stream": lambda c: c.completions.create(model="none", prompt="x", stream=True),
    "wrong body": lambda c: c.completions.create(model="simulated", prompt={"a": 1}),
}


@pytest.mark.parametrize("two", ["ollama"], indirect=True)
def test_ollamas_client_sees_no_difference(two: Two) -> None:
    """Its whole surface, one call after the other."""
    seen: list[dict[str, Any]] = []
    for url in two.urls:
        client = ollama.Client(host=url)
        seen.append({name: outcome(partial(call, client)) for name, call in OLLAMA_CALLS.items()})
        client.close()
    for name, direct in seen[0].items():
        assert seen[1][name] == direct, name
    assert seen[0]["chat"]["message"]["content"]
    assert seen[0]["chat, tools"]["message"]["tool_calls"][0]["function"]["name"] == "look_up"
    assert json.loads(seen[0]["generate, json"]["response"])
    failed = {name for name, result in seen[0].items() if isinstance(result, tuple)}
    assert failed == {
        "pull, unknown", "delete, unknown", "copy, unknown", "unknown model",
        "unknown model, stream", "wrong option",
    }  # fmt: skip


def test_openais_client_sees_no_difference(two: Two) -> None:
    """Chats, completions, embeddings and responses, plain and streamed, and errors."""
    seen: list[dict[str, Any]] = []
    for url in two.urls:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            seen.append(
                {name: outcome(partial(call, client)) for name, call in OPENAI_CALLS.items()}
            )
    for name, direct in seen[0].items():
        assert seen[1][name] == direct, name
    calls = seen[0]["chat, tools"]["choices"][0]["message"]["tool_calls"]
    assert json.loads(calls[0]["function"]["arguments"])
    assert json.loads(seen[0]["chat, json"]["choices"][0]["message"]["content"])
    failed = {name for name, result in seen[0].items() if isinstance(result, tuple)}
    assert failed == {"unknown model", "unknown model, stream", "wrong body"}


@pytest.mark.parametrize("kind", ["die_mid_stream", "error_line", "http_500"])
@pytest.mark.parametrize("stream", [False, True])
def test_clients_see_the_same_failures(two: Two, kind: str, stream: bool) -> None:
    """A connection that breaks, an engine that fails amid an answer, a refusal."""
    two.order_fault(kind=kind, after_tokens=3, count=2)
    for call in (
        lambda c: c.chat.completions.create(model="simulated", messages=HI, stream=stream),
        lambda c: c.responses.create(model="simulated", input="Hello", stream=stream),
    ):
        seen = []
        for url in two.urls:
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                seen.append(outcome(partial(call, client)))
        if kind == "die_mid_stream":
            assert [one[0] for one in seen] == [seen[0][0]] * 2
        elif not stream or kind == "http_500":
            assert isinstance(seen[0], tuple)
        if kind != "die_mid_stream":
            assert seen[0] == seen[1]


MESSAGE = {"model": "simulated", "max_tokens": 9, "messages": HI, "system": "Be brief."}
RESPONSE = {"model": "simulated", "max_output_tokens": 9, "input": "Tell me of the sea."}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), [("/v1/messages", MESSAGE), ("/v1/responses", RESPONSE)])
def test_messages_and_responses_are_passed_on_and_counted(
    two: Two, path: str, body: dict[str, Any], stream: bool
) -> None:
    """Bytes as direct; the record has the tokens that the server told, and of a stream its first
    token's time. The second time most of the prompt is cached, and still counts as input."""
    long = {"messages": [{"role": "user", "content": "word " * 80}]}
    asked = body | (long if path == "/v1/messages" else {"input": "word " * 80})
    answers = []
    for _ in range(2):
        pair = [httpx2.post(url + path, json=asked | {"stream": stream}) for url in two.urls]
        assert pair[0].status_code == pair[1].status_code == 200
        events = [[plain(one) for one in objects(answer)] for answer in pair]
        assert without_moments(events[0]) == without_moments(events[1])
        answers.append(usage_of(objects(pair[1])))
    timelines = two.timelines(2)
    for timeline, usage in zip(timelines, answers, strict=True):
        cached = usage.get("cache_read_input_tokens", 0) if path == "/v1/messages" else 0
        assert timeline.status is Status.OK
        assert timeline.input_tokens == usage["input_tokens"] + cached
        assert timeline.output_tokens == usage["output_tokens"] == 9
        assert timeline.tokens_source == "usage"
        assert timeline.streamed is stream
        assert (timeline.first_token_ns is not None) is stream
        if stream:
            assert timeline.sent_ns < timeline.first_token_ns <= timeline.end_ns
            assert len(timeline.chunk_ns) == 9
    assert timelines[0].input_tokens == timelines[1].input_tokens
    assert timelines[1].cached_input_tokens > 0


def objects(answer: httpx2.Response) -> list[dict[str, Any]]:
    """The objects of an answer, streamed or not."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return [answer.json()]
    lines = answer.text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def usage_of(events: list[dict[str, Any]]) -> dict[str, int]:
    """The last usage that was told."""
    found = [one.get("usage") or one.get("response", {}).get("usage") for one in events]
    return [usage for usage in found if usage][-1]


def without_moments(events: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(plain(one), sort_keys=True) for one in events]


def test_curl_sees_no_difference(two: Two) -> None:
    """Plain and streamed, an upload in chunks, and only the head."""
    path = "/api/chat" if two.kind == "ollama" else "/v1/chat/completions"
    limit = {"options": {"num_predict": 5}} if two.kind == "ollama" else {"max_tokens": 5}
    body = {"model": "simulated", "messages": HI, **limit}
    for extra in (
        ["-d", json.dumps(body | {"stream": False})],
        ["-N", "-d", json.dumps(body | {"stream": True})],
        ["-H", "Transfer-Encoding: chunked", "-d", json.dumps(body | {"stream": False})],
        ["-H", "Expect: 100-continue", "-d", json.dumps(body | {"stream": False})],
        ["-X", "GET"],
    ):
        printed = [curl(*extra, url + path) for url in two.urls]
        assert masked(printed[1]) == masked(printed[0])


def curl(*words: str) -> str:
    command = ["curl", "-sS", "-w", "\n%{http_code} %{content_type}", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    return done.stdout


def masked(text: str) -> list[Any]:
    """Lines as plain values where they are JSON."""
    lines = []
    for line in text.splitlines():
        start = line.removeprefix("data: ")
        lines.append(plain(json.loads(start)) if start.startswith("{") else line)
    return lines
