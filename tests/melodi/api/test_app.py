"""The API as a whole: its guard, its errors, its health and its documentation."""

from typing import Any

import pytest
from energy_records import make_record
from prometheus_client import Counter
from starlette.testclient import TestClient

from melodi.api.app import create_api
from melodi.energy.accounts import MinuteAccounts
from melodi.store.records import Batch

BODY = {"backend": "ollama", "model": "tiny", "prompt": "2 + 2?"}


def test_what_the_daemon_knows_of_its_host_is_listed(client: TestClient) -> None:
    """Domains and backends have the shape of every list."""
    assert client.get("/v1/domains").json() == {
        "items": [{"name": "package:0", "idle_watts": None}],
        "next_cursor": None,
    }
    assert client.get("/v1/backends").json()["items"] == [{"name": "ollama", "up": False}]


def test_metrics_are_those_of_the_daemons_registry(client: TestClient, daemon: Any) -> None:
    """The text format, and nothing of a global registry."""
    Counter("melodi_things", "Things", registry=daemon.registry).inc(3)
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "melodi_things_total 3.0" in answer.text
    assert "python_info" not in answer.text


def test_ready_means_no_faults(client: TestClient, daemon: Any) -> None:
    """Health is about the process, readiness about its work; the faults are told with the 503."""
    assert client.get("/readyz").json() == {"ready": True}
    daemon.trouble.append("the database is away; start it")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["faults"]) == (503, daemon.trouble)
    assert client.get("/healthz").json() == {"healthy": True}


def test_a_browser_is_led_to_a_page_that_says_what_each_route_gives(client: TestClient) -> None:
    """The address alone leads there, and the list of routes speaks in sentences."""
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"
    paths = client.get("/openapi.json").json()["paths"]
    summaries = [one["summary"] for path in paths.values() for one in path.values()]
    assert "Windows, newest first" in summaries
    assert any("0.2 s" in one for one in summaries)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/requests/x", 404), ("DELETE", "/v1/requests", 405)],
)
def test_every_error_is_a_problem(client: TestClient, method: str, path: str, status: int) -> None:
    """Errors of routing and of routes have the same shape (RFC 9457)."""
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    )
    told = answer.json()
    assert told["status"] == status
    assert told["type"] == "about:blank"
    assert told["title"]
    assert told["detail"]


def test_a_method_that_is_not_allowed_says_which_are(client: TestClient) -> None:
    """405 keeps its Allow header."""
    assert "GET" in client.delete("/v1/domains").headers["allow"]


def test_a_defect_is_a_500_without_a_traceback(
    client: TestClient, daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong inside stays inside."""

    def fail() -> list[str]:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(daemon, "faults", fail)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "42" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("content", [b'{"prompt": hush', b'{"backend": ["hush"]}'])
def test_a_body_that_is_wrong_is_a_problem_that_does_not_repeat_it(
    client: TestClient, content: bytes
) -> None:
    """422, and the words that were sent are not sent back."""
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/requests", content=content, headers=headers)
    assert answer.status_code == 422
    assert "hush" not in answer.text


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9", "localhost:8340", "LOCALHOST", "[::1]:8340", "melodi.example:1"],
)
def test_the_api_answers_to_its_own_names(client: TestClient, host: str) -> None:
    """Loopback under all its names, and the name it was given."""
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1:8340",
        "evil@127.0.0.1",
        "127.0.0.1/x",
        "[::1",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/v1/requests", "/nowhere"])
def test_a_host_that_is_not_ours_is_refused(client: TestClient, host: str, path: str) -> None:
    """A name that somebody pointed at this machine does not open any route."""
    answer = client.get(path, headers={"Host": host})
    assert (answer.status_code, answer.json()["status"]) == (421, 421)


def test_two_hosts_are_no_host(client: TestClient) -> None:
    """Which of them another reader would believe is not known."""
    headers = [("Host", "127.0.0.1"), ("Host", "evil.example")]
    assert client.get("/healthz", headers=headers).status_code == 421


def test_on_all_interfaces_addresses_are_good_and_names_are_not(daemon: Any) -> None:
    """Rebinding needs a name, so any address may be called where all are listened on."""
    with TestClient(create_api(daemon, names=("0.0.0.0",))) as client:
        for host, status in (("10.1.2.3:8340", 200), ("evil.example", 421)):
            assert client.get("/healthz", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:8340", 200),
        ("http://127.0.0.1:9999", 403),
        ("https://127.0.0.1:8340", 403),
        ("http://evil.example", 403),
        ("null", 403),
    ],
)
def test_a_page_of_elsewhere_cannot_post(
    client: TestClient, daemon: Any, origin: str | None, status: int
) -> None:
    """A post that a browser sends for another origin is refused before it does anything."""
    headers = {} if origin is None else {"Origin": origin}
    assert client.post("/v1/requests", json=BODY, headers=headers).status_code == status
    assert len(daemon.sent) == (status == 200)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain; application/json", 415),
        (None, 415),
    ],
)
def test_only_json_may_be_posted(
    client: TestClient, daemon: Any, content_type: str | None, status: int
) -> None:
    """The types that a form can send without being asked first are refused."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    content = b'{"backend": "ollama", "model": "tiny", "prompt": "?"}'
    answer = client.post("/v1/requests", content=content, headers=headers)
    assert answer.status_code == status
    assert len(daemon.sent) == (status == 200)


def schema_of(client: TestClient, path: str) -> dict[str, Any]:
    """What the documentation says of a GET's answer, with its item's properties."""
    spec = client.get("/openapi.json").json()
    content = spec["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    parts = spec["components"]["schemas"]
    schema = parts[content["schema"]["$ref"].rpartition("/")[2]]
    if "items" in schema["properties"]:
        schema = parts[schema["properties"]["items"]["items"]["$ref"].rpartition("/")[2]]
    return schema


def test_the_documentation_says_what_is_answered(client: TestClient, daemon: Any) -> None:
    """Each answer's fields are those of its schema, and all of them are promised."""
    record = make_record()
    minute = MinuteAccounts(domain="package:0", minute=1, measured_joules=1.0)
    daemon.store.apply([Batch(host="here", records=(record,), minutes=(minute,))])
    for path in ("/v1/requests", "/v1/ledger"):
        (item,) = client.get(path).json()["items"]
        schema = schema_of(client, path)
        assert list(item) == list(schema["properties"]) == schema["required"]
    one = client.get(f"/v1/requests/{record.id}").json()
    assert list(one) == schema_of(client, "/v1/requests/{request_id}")["required"]


def test_the_documentation_of_errors_is_theirs(client: TestClient) -> None:
    """Every route promises problem+json, and none the framework's own error."""
    spec = client.get("/openapi.json")
    assert "HTTPValidationError" not in spec.text
    for path in spec.json()["paths"].values():
        for operation in path.values():
            assert list(operation["responses"]["default"]["content"]) == [
                "application/problem+json"
            ]
    assert client.get("/docs").status_code == 200
