"""Which headers pass the gateway, either way, and what MELODI's own say."""

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""They speak of one connection, not of the message (RFC 9110, 7.6.1)."""
OWN_PREFIX = b"x-melodi-"
TAGS = b"x-melodi-tags"
CAMPAIGN = b"x-melodi-campaign"
REQUEST_ID = b"x-melodi-request-id"


def to_backend(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """What the backend sees of a client's headers; its Host is its own, and `Expect` has been
    answered by the server that took the request."""
    passing = _end_to_end(list(headers))
    return [
        (name, value)
        for name, value in passing
        if name not in (b"host", b"expect") and not name.startswith(OWN_PREFIX)
    ]


def to_client(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """What the client sees of a backend's headers, whose names are in lower case already."""
    return _end_to_end(list(headers))


def first(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first value of a header, None where it is not there."""
    for key, value in headers:
        if key == name:
            return value.decode("utf-8", "replace")
    return None


def parse_tags(value: str | None) -> dict[str, str]:
    """`k=v,k=v` as a dict; a part without a name and a value is no tag."""
    pairs = (part.partition("=") for part in (value or "").split(","))
    return {name.strip(): text.strip() for name, equals, text in pairs if equals and name.strip()}


def _end_to_end(headers: Headers) -> Headers:
    named = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    hops = HOP_BY_HOP | named if named else HOP_BY_HOP
    return [(name, value) for name, value in headers if name not in hops]
