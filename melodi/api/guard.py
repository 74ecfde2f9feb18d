"""Keeps web pages of elsewhere from using a browser to call this API."""

import re
from collections.abc import Iterable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from melodi.api.answers import problem

_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]+))(?::\d+)?", re.ASCII)
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})


class Guard:
    """Checks the Host of every request, and the Origin and content type of those that write.

    Loopback names are always good hosts, and so are `names`. Where these hold the address of
    all interfaces, any address is: a rebound DNS name is never one.
    """

    def __init__(self, app: ASGIApp, *, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(_name_in(hosts[0])):
            return problem(421, "this Host is not served here; call the API by its own address")
        if scope["method"] != "POST":
            return None
        own_origin = f"{scope['scheme']}://{hosts[0]}"
        if any(origin.lower() != own_origin.lower() for origin in headers.getlist("origin")):
            return problem(403, "pages of another origin may not post here; call from outside one")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return problem(415, "send JSON, with Content-Type: application/json")
        return None

    def _is_ours(self, name: str) -> bool:
        if name == "localhost" or name in self._names:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._names.isdisjoint(_ANY_ADDRESS)


def _name_in(host: str) -> str:
    """The host without its port, in small letters; empty where it is malformed."""
    match = _HOST.fullmatch(host)
    return (match["address"] or match["name"]).lower() if match else ""
