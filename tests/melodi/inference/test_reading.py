"""Large bodies are read where no traffic passes."""

import asyncio
from collections.abc import Iterator

import orjson
import pytest

from melodi.inference import reading
from melodi.inference.backends.base import RequestFacts
from melodi.inference.reading import HERE_BYTES, RequestReader

SMALL = b'{"model":"m","prompt":"hi","stream":true}'
LARGE = b'{"model":"m","prompt":"' + b"x" * HERE_BYTES + b'","stream":true}'


@pytest.fixture
def reader() -> Iterator[RequestReader]:
    """Closed after the test."""
    made = RequestReader()
    yield made
    made.close()


async def read(reader: RequestReader, body: bytes) -> RequestFacts:
    return await reader.read("vllm", "/v1/completions", body)


async def test_a_large_body_is_not_parsed_in_this_process(
    reader: RequestReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its facts come all the same, from a process of its own."""

    def here(text: bytes) -> object:
        parsed.append(len(text))
        return orjson_loads(text)

    parsed: list[int] = []
    orjson_loads = orjson.loads
    monkeypatch.setattr("melodi.inference.ndjson.orjson.loads", here)
    assert (await read(reader, SMALL)).prompt == "hi"
    facts = await read(reader, LARGE)
    assert (facts.model, facts.streamed, len(facts.prompt or "")) == ("m", True, HERE_BYTES)
    assert parsed == [len(SMALL)]


async def test_the_loop_goes_on_while_a_large_body_is_read(reader: RequestReader) -> None:
    """Whoever reads gives way at once."""
    waiting = asyncio.create_task(read(reader, LARGE))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert (await waiting).model == "m"


@pytest.mark.parametrize("body", [LARGE[:-1], b"[" + LARGE + b"]"], ids=["torn", "no object"])
async def test_a_large_body_that_is_no_object_tells_nothing(
    reader: RequestReader, body: bytes
) -> None:
    """As a small one."""
    assert await read(reader, body) == RequestFacts()


async def test_a_reader_that_fails_costs_the_facts_and_is_replaced(
    reader: RequestReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traffic goes on without them, and the next large body is read again."""
    with monkeypatch.context() as patch:
        patch.setattr(reading, "facts_of", _unpicklable())
        assert await read(reader, LARGE) == RequestFacts()
    assert (await read(reader, LARGE)).model == "m"


def _unpicklable() -> object:
    return lambda *words: words
