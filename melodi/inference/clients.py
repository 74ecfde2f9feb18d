"""Sends one prompt through a backend's own Python package and gives its answer as JSON objects."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from melodi.errors import BackendError
from melodi.inference.backends.refusals import error_text, said
from melodi.inference.ndjson import read_object
from melodi.inference.recording import broken, unreachable
from melodi.inference.request import Backend, BackendKind, PromptRequest
from melodi.inference.tls import trust

if TYPE_CHECKING:
    from openai import AsyncStream
    from openai.types.chat import ChatCompletionChunk

KEEPALIVE_SECONDS = 3
"""Shorter than uvicorn's 5 s, so that a connection is never used while the backend closes it."""
CONNECT_SECONDS = 30
OLLAMA_OPTION_NAMES = {"max_tokens": "num_predict"}
OLLAMA_FIELD_NAMES = frozenset({"think", "keep_alive", "format"})
ON_SENT: ContextVar[Callable[[], None]] = ContextVar("on_sent")
"""Whom to tell that the request of this task was written: the packages pass nothing of ours on."""


class Refused(BackendError):
    """The backend answered with an error; `http_status` is None where it came amid a stream."""

    def __init__(self, message: str, *, http_status: int | None) -> None:
        super().__init__(message)
        self.http_status = http_status


class Unanswered(BackendError):
    """The connection to the backend could not be made, or broke."""


class BackendClient(Protocol):
    """Sends prompts to one backend."""

    def stream(
        self, request: PromptRequest, *, on_sent: Callable[[], None]
    ) -> AsyncGenerator[Mapping[str, object], None]:
        """The objects of the answer as they come; raises Refused or Unanswered.

        `on_sent` is called once the request has been written to the backend.
        """
        ...

    async def close(self) -> None: ...


class OllamaClient:
    """Ollama's native API through the `ollama` package."""

    def __init__(self, backend: Backend) -> None:
        import httpx
        import ollama

        key = backend.api_key
        self._backend = backend
        self._client = ollama.AsyncClient(
            host=backend.url,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            trust_env=False,
            verify=trust(backend),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
            event_hooks={"request": [_follow]},
        )

    async def stream(
        self, request: PromptRequest, *, on_sent: Callable[[], None]
    ) -> AsyncGenerator[Mapping[str, object], None]:
        import httpx
        import ollama

        ON_SENT.set(on_sent)
        try:
            async with aclosing(await self._send(request)) as answer:
                async for part in answer:
                    yield part.model_dump(exclude_none=True)
        except ollama.ResponseError as error:
            status = error.status_code if error.status_code > 0 else None
            raise Refused(str(error.error), http_status=status) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unanswered(unreachable(self._backend, error)) from error
        except (httpx.TransportError, ValueError) as error:
            raise Unanswered(broken(self._backend, error)) from error

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _send(self, request: PromptRequest) -> Any:
        asked = {"model": request.model, "stream": True, **_ollama_options(request.options)}
        if request.messages:
            return await self._client.chat(messages=request.messages, **asked)
        return await self._client.generate(prompt=request.prompt or "", **asked)


class OpenaiClient:
    """Chat completions through the `openai` package, for vLLM and whatever speaks like it."""

    def __init__(self, backend: Backend) -> None:
        import httpx2
        import openai

        self._backend = backend
        self._asks_usage = True
        self._client = openai.AsyncOpenAI(
            base_url=f"{backend.url}/v1",
            api_key=backend.api_key or "none",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
                follow_redirects=False,
                trust_env=False,
                verify=trust(backend),
                limits=httpx2.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
                event_hooks={"request": [_follow]},
            ),
        )

    async def stream(
        self, request: PromptRequest, *, on_sent: Callable[[], None]
    ) -> AsyncGenerator[Mapping[str, object], None]:
        import httpx2
        import openai

        ON_SENT.set(on_sent)
        try:
            async with await self._send(request) as answer:
                async for chunk in answer:
                    yield chunk.model_dump(exclude_none=True)
        except openai.APIStatusError as error:
            raise _refused(error) from error
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                raise Unanswered(unreachable(self._backend, error)) from error
            raise Unanswered(broken(self._backend, error.__cause__ or error)) from error
        except openai.APIError as error:
            raise Refused(said(error.body) or error.message, http_status=None) from error
        except (httpx2.TransportError, ValueError) as error:
            raise Unanswered(broken(self._backend, error)) from error

    async def close(self) -> None:
        await self._client.close()

    async def _send(self, request: PromptRequest) -> "AsyncStream[ChatCompletionChunk]":
        """Ask for usage, and once more without where the backend does not know the field."""
        import openai

        if not self._asks_usage:
            return await self._create(request, {})
        try:
            return await self._create(request, {"stream_options": {"include_usage": True}})
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            if self._backend.kind is BackendKind.VLLM:
                raise
            answer = await self._create(request, {})
            self._asks_usage = False
            return answer

    async def _create(
        self, request: PromptRequest, extra: Mapping[str, object]
    ) -> "AsyncStream[ChatCompletionChunk]":
        messages: Any = request.messages or ({"role": "user", "content": request.prompt},)
        return await self._client.chat.completions.create(
            model=request.model,
            messages=messages,
            stream=True,
            extra_body={**request.options, **extra},
        )


def open_client(backend: Backend) -> BackendClient:
    """A client of the backend's kind; nothing is sent yet."""
    return OllamaClient(backend) if backend.kind is BackendKind.OLLAMA else OpenaiClient(backend)


async def _follow(request: Any) -> None:
    request.extensions["trace"] = _trace


async def _trace(event: str, info: object) -> None:
    del info
    if event.endswith("send_request_body.complete"):
        ON_SENT.get()()


def _ollama_options(options: Mapping[str, object]) -> dict[str, Any]:
    """The object `options` under Ollama's names, and those fields that stand beside it."""
    inner = {
        OLLAMA_OPTION_NAMES.get(name, name): value
        for name, value in options.items()
        if name not in OLLAMA_FIELD_NAMES
    }
    fields = {name: options[name] for name in OLLAMA_FIELD_NAMES & options.keys()}
    return {"options": inner, **fields}


def _refused(error: Any) -> Refused:
    """What the backend said; the package's own words would repeat the whole body."""
    value = read_object(error.response.content) or {}
    found = error_text(value) or f"the backend answered with HTTP status {error.status_code}"
    return Refused(found, http_status=error.status_code)
