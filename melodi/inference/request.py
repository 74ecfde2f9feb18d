"""A backend, and one prompt to be sent to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from melodi.errors import BackendError, ConfigError


class BackendKind(StrEnum):
    """What a backend speaks."""

    OLLAMA = "ollama"
    VLLM = "vllm"
    OPENAI = "openai"


def check_url(url: str) -> str:
    """Give back a backend's url; raises ValueError where it cannot be one, without showing keys."""
    if "@" in url:
        raise ValueError("its url holds a user or a password; put it into api_key")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            "its host or its port (1 to 65535) cannot be understood; "
            "write its url like http://127.0.0.1:11434"
        ) from None
    is_clean = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not is_clean:
        raise ValueError(f"{url!r} is no url; write it like http://127.0.0.1:11434")
    if parts.query or parts.fragment or parts.path.rstrip("/").endswith("/v1"):
        raise ValueError(
            f"write its url without /v1, query or fragment, like {parts.scheme}://{parts.netloc}"
        )
    return url


def check_api_key(key: str | None) -> str | None:
    """Give back a key; raises ValueError where it cannot stand in a header, without showing it."""
    if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
        raise ValueError("its api_key is empty or has spaces around it, or is not printable ASCII")
    return key


def check_ca(ca: Path | None, url: str) -> None:
    """Raise ValueError where a url has no use for a certificate authority."""
    if ca is not None and not url.startswith("https:"):
        raise ValueError("its ca is for https; write its url with https://, or leave ca out")


def check_process(process: str | int) -> str | int:
    """Give back what says which processes work for a backend; raises ValueError for no such."""
    is_pid = isinstance(process, int) and process > 0
    is_cgroup = isinstance(process, str) and process.startswith("cgroup:/")
    if not (is_pid or is_cgroup or process == "auto"):
        raise ValueError(f'{process!r} is no process; write "auto", a pid, or "cgroup:/path"')
    return process


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One inference server; raises ConfigError where its url cannot be one."""

    name: str
    kind: BackendKind
    url: str
    """Scheme, host and port, without a path for the API: `http://127.0.0.1:11434`."""
    devices: tuple[str, ...] | None = None
    """Names of the domains it runs on; None: to be found out."""
    api_key: str | None = field(default=None, repr=False)
    asks_usage: bool = True
    """Whether the gateway asks vLLM's streams for token counts where their clients do not."""
    ca: Path | None = None
    """Certificates (PEM) that vouch for it; None: the system's do."""

    def __post_init__(self) -> None:
        try:
            check_url(self.url)
            check_api_key(self.api_key)
            check_ca(self.ca, self.url)
        except ValueError as error:
            raise ConfigError(f"backend {self.name}: {error}") from None
        object.__setattr__(self, "kind", BackendKind(self.kind))
        object.__setattr__(self, "url", self.url.rstrip("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRequest:
    """One prompt for one backend: a text or a conversation, never both."""

    backend: Backend
    model: str
    prompt: str | None = None
    messages: tuple[Mapping[str, object], ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    """OpenAI's names for max_tokens, temperature and seed; other names go as they are."""
    tags: Mapping[str, str] = field(default_factory=dict)
    campaign: str | None = None
    task: str | None = None
    timeout_seconds: float | None = None
    prompt_id: str | None = None
    """The prompt's own id in its set; kept as the tag `prompt_id`."""

    def __post_init__(self) -> None:
        if (self.prompt is None) == (not self.messages):
            raise BackendError("give a prompt or messages, one of the two")
