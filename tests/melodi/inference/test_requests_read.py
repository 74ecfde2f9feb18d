"""What a request's body asks for, on each inference path of each kind of backend."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.inference.backends.base import RequestFacts
from melodi.inference.backends.ollama import model_name
from melodi.inference.observer import dialect_of, read_request

CHAT = [{"role": "user", "content": "hi"}]


def read(kind: str, path: str, body: object) -> RequestFacts:
    """The facts of a POST."""
    dialect = dialect_of(kind, path)
    assert dialect is not None
    return read_request(dialect, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("kind", "path", "is_inference"),
    [
        ("ollama", "/api/generate", True),
        ("ollama", "/api/chat", True),
        ("ollama", "/api/embed", True),
        ("ollama", "/api/embeddings", True),
        ("ollama", "/v1/chat/completions", True),
        ("ollama", "/v1/messages", True),
        ("ollama", "/api/tags", False),
        ("vllm", "/v1/completions", True),
        ("vllm", "/v1/responses", True),
        ("vllm", "/v1/embeddings", True),
        ("vllm", "/api/generate", False),
        ("openai", "/v1/messages", True),
        ("openai", "/v1/models", False),
    ],
)
def test_which_paths_are_inference(kind: str, path: str, is_inference: bool) -> None:
    """Ollama has its own API and OpenAI's; the others have OpenAI's alone."""
    assert (dialect_of(kind, path) is not None) is is_inference


def test_ollama_streams_unless_told_not_to_and_openai_only_when_told() -> None:
    """The two defaults are opposite; anything but a truth value leaves the default."""
    chat = "/v1/chat/completions"
    assert read("ollama", "/api/generate", {"prompt": "x"}).streamed is True
    assert read("ollama", "/api/generate", {"prompt": "x", "stream": None}).streamed is True
    assert read("ollama", "/api/generate", {"prompt": "x", "stream": False}).streamed is False
    assert read("ollama", chat, {"messages": CHAT}).streamed is False
    assert read("vllm", chat, {"messages": CHAT, "stream": True}).streamed is True
    assert read("ollama", "/api/embed", {"input": "x"}).streamed is False


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "hi"}),
        ("/api/chat", {"messages": CHAT}),
        ("/api/embed", {"input": ["hi"]}),
        ("/api/embeddings", {"prompt": "hi"}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:"}}
        ]}]}),
        ("/v1/embeddings", {"input": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": CHAT}),
    ],
)  # fmt: skip
def test_one_prompt_has_one_text_whichever_way_it_is_sent(path: str, body: object) -> None:
    """So that its hash is the same everywhere; images are no text."""
    assert read("ollama", path, body).prompt == "hi"


def test_a_conversation_is_its_roles_and_texts() -> None:
    """Several turns keep their order and who said them."""
    turns = [{"role": "system", "content": "be brief"}, *CHAT]
    assert read("vllm", "/v1/chat/completions", {"messages": turns}).prompt == (
        "system: be brief\nuser: hi"
    )


def test_generation_holds_numbers_and_short_words_and_never_text() -> None:
    """A prompt must not reach the record by way of a parameter."""
    body = {"model": "m", "prompt": "p", "system": "s", "think": "low", "format": {"a": 1}}
    options = {"num_predict": 5, "temperature": 0.0, "stop": ["secret"], "unknown": "secret"}
    facts = read("ollama", "/api/generate", body | {"options": options})
    assert facts.generation == {"num_predict": 5, "temperature": 0.0, "think": "low"}
    shared = {"messages": CHAT, "max_tokens": 4, "user": "secret", "response_format": {}}
    assert read("vllm", "/v1/chat/completions", shared).generation == {"max_tokens": 4}


def test_a_call_without_a_prompt_only_loads() -> None:
    """Ollama loads on an empty prompt or an empty conversation, and OpenAI's paths never do."""
    assert read("ollama", "/api/generate", {"model": "m", "keep_alive": 0}).load_only
    assert read("ollama", "/api/chat", {"model": "m", "messages": []}).load_only
    assert not read("ollama", "/api/chat", {"model": "m", "messages": CHAT}).load_only
    assert not read("ollama", "/v1/completions", {"model": "m"}).load_only


@given(st.text(alphabet="ab:/-.", max_size=12))
def test_a_model_has_one_name_with_and_without_latest(name: str) -> None:
    """`tiny` and `tiny:latest` are one model; other tags stay."""
    assert model_name(f"{name}:latest") == (name or None)
    assert model_name("tiny:1b") == "tiny:1b"


def test_a_body_that_is_no_object_says_nothing() -> None:
    """Unknown is None: model, streaming and prompt."""
    dialect = dialect_of("ollama", "/api/chat")
    assert dialect is not None
    assert read_request(dialect, b"\x1f\x8b") == RequestFacts()
