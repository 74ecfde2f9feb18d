"""A backend or a prompt that cannot be used is refused with what to do."""

import pytest

from melodi.errors import BackendError, ConfigError
from melodi.inference.request import Backend, BackendKind, PromptRequest

GOOD = Backend(name="b", kind=BackendKind.VLLM, url="http://h:1/", api_key="secret")


@pytest.mark.parametrize("url", ["127.0.0.1:11434", "ftp://h", "http://", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    """The message shows how one is written."""
    with pytest.raises(ConfigError, match=r"write it like http://127\.0\.0\.1:11434"):
        Backend(name="b", kind=BackendKind.OLLAMA, url=url)


@pytest.mark.parametrize("url", ["http://h/v1", "http://h/v1/", "http://h?x=1", "http://h#x"])
def test_a_url_with_the_apis_path_is_refused(url: str) -> None:
    """Clients give the path; the message shows what to leave."""
    with pytest.raises(ConfigError, match=r"like http://h$"):
        Backend(name="b", kind=BackendKind.VLLM, url=url)


def test_a_backends_key_is_not_in_its_text() -> None:
    """What is logged by accident must not hold the key."""
    assert "secret" not in repr(GOOD)
    assert GOOD.url == "http://h:1"


@pytest.mark.parametrize("given", [{}, {"prompt": "x", "messages": ({"role": "user"},)}])
def test_a_request_has_a_prompt_or_messages(given: dict[str, object]) -> None:
    """Neither and both are refused."""
    with pytest.raises(BackendError, match="one of the two"):
        PromptRequest(backend=GOOD, model="m", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["http://me:secret@h:1", "http://secret@h", "me:secret@h:1", "ftp://me:secret@h"]
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    """Urls stand in errors, records and answers; a key does not."""
    with pytest.raises(ConfigError, match="put it into api_key") as caught:
        Backend(name="b", kind=BackendKind.VLLM, url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://h:99999", "http://h:x", "http://[::1", "http://h:0"])
def test_a_host_or_port_that_cannot_be_is_refused(url: str) -> None:
    """The message shows how a url is written."""
    with pytest.raises(ConfigError, match=r"write it|write its url"):
        Backend(name="b", kind=BackendKind.VLLM, url=url)


@pytest.mark.parametrize("key", ["", " k", "schl\u00fcssel", "k\r\nX-Other: 1", "a\x00b"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str) -> None:
    """It would fail with every request."""
    with pytest.raises(ConfigError, match="not printable ASCII") as caught:
        Backend(name="b", kind=BackendKind.VLLM, url="http://h", api_key=key)
    assert not key.strip() or key not in str(caught.value)
