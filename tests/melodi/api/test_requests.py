"""`/v1/requests`."""

import asyncio
from dataclasses import fields, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from energy_records import make_record
from starlette.testclient import TestClient

from melodi.energy.record import DomainEnergy, EnergyRecord, Quality, Status
from melodi.errors import BackendError, StoreError


def ids(answer: Any) -> list[str]:
    """The ids of a list."""
    return [item["id"] for item in answer.json()["items"]]


def test_a_record_is_told_whole(client: TestClient, daemon: Any) -> None:
    """Every field is there: unknown is null, tags and domains are objects, times end in Z."""
    record = make_record(
        tags={"k": "v"},
        prompt=None,
        gpu_joules=0.0,
        domains={"package:0": DomainEnergy(scope="package", source="rapl", reasons=("late",))},
    )
    daemon.add(record)
    told = client.get(f"/v1/requests/{record.id}").json()
    assert list(told) == [f.name for f in fields(EnergyRecord)]
    assert told["started_at"] == "2026-01-01T00:00:00Z"
    assert (told["prompt"], told["gpu_joules"], told["seq"]) == (None, 0.0, 1)
    assert (told["tags"], told["status"], told["quality"]) == ({"k": "v"}, "ok", "measured")
    assert told["domains"]["package:0"]["reasons"] == ["late"]
    assert told["domains"]["package:0"]["joules"] is None


def test_a_list_is_newest_first_with_a_cursor_to_the_rest(client: TestClient, daemon: Any) -> None:
    """Following next_cursor to null gives all records once."""
    records = [make_record(number) for number in range(5)]
    daemon.add(*records)
    first = client.get("/v1/requests", params={"limit": 3})
    assert set(first.json()) == {"items", "next_cursor"}
    cursor = first.json()["next_cursor"]
    second = client.get("/v1/requests", params={"limit": 3, "cursor": cursor})
    assert second.json()["next_cursor"] is None
    assert ids(first) + ids(second) == [record.id for record in records[::-1]]


def test_lines_of_json_hold_one_record_each_and_link_to_the_rest(
    client: TestClient, daemon: Any
) -> None:
    """With Accept: application/x-ndjson the cursor moves into a Link header that works."""
    records = [make_record(number) for number in range(3)]
    daemon.add(*records)
    headers = {"Accept": "application/x-ndjson"}
    first = client.get("/v1/requests?limit=2&model=tiny", headers=headers)
    assert first.headers["content-type"] == "application/x-ndjson"
    told = [orjson.loads(line)["id"] for line in first.text.splitlines()]
    rest = client.get(first.links["next"]["url"], headers=headers)
    told += [orjson.loads(line)["id"] for line in rest.text.splitlines()]
    assert told == [record.id for record in records[::-1]]
    assert "link" not in rest.headers


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [2, 1, 0]),
        ("host=there", []),
        ("backend=ollama&model=other", [1]),
        ("campaign=c", [0]),
        ("task=t", [2]),
        ("status=error", [1]),
        ("quality=gap", [2]),
        ("tag=k=v", [0]),
        ("tag=k:v", [0]),
        ("tag=k=v&tag=n=1", []),
        ("since=2026-01-01T00:00:01Z", [2, 1]),
        ("until=2026-01-01T01:00:01%2B01:00", [0]),
        ("since=9s", [2, 1]),
        ("since=1h", [2, 1, 0]),
        ("min_energy_joules=1&max_energy_joules=1", [1]),
    ],
)
def test_each_filter_asks_for_what_it_says(
    client: TestClient, daemon: Any, query: str, expected: list[int]
) -> None:
    """All filters work through the URL, durations back from the daemon's own clock."""
    records = [
        make_record(0, campaign="c", tags={"k": "v"}),
        make_record(1, model="other", status=Status.ERROR),
        make_record(2, task="t", quality=Quality.GAP, tags={"n": "1"}),
    ]
    daemon.add(*records)
    daemon.clock.advance(10_000_000_000)
    assert ids(client.get(f"/v1/requests?{query}")) == [records[n].id for n in expected]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("status=fine", "status"),
        ("min_energy_joules=nan", "min_energy_joules"),
        ("modle=tiny", "modle"),
        ("cursor=nonsense", "start again without one"),
        ("tag=k", "name=value"),
        ("since=yesterday", "1h or 7d"),
        ("since=2026-01-01T00:00:00", "add Z"),
    ],
)
def test_a_question_that_cannot_be_understood_is_refused(
    client: TestClient, query: str, said: str
) -> None:
    """Each wrong parameter, a misspelt one too, is a 422 that names it or says what to write."""
    answer = client.get(f"/v1/requests?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert said in answer.json()["detail"]


def test_what_is_known_in_memory_is_newer_than_what_is_stored(
    client: TestClient, daemon: Any
) -> None:
    """A provisional record is told as the daemon knows it, a final one as it was stored."""
    stale = make_record(1, provisional=True, energy_joules=1.0)
    done = make_record(0, energy_joules=5.0)
    unwritten = make_record(2, provisional=True, energy_joules=3.0)
    daemon.add(stale, done)
    for record in (stale, done, unwritten):
        daemon.previews[record.id] = replace(record, energy_joules=9.0)
    told = [client.get(f"/v1/requests/{r.id}").json() for r in (stale, done, unwritten)]
    assert [one["energy_joules"] for one in told] == [9.0, 5.0, 9.0]


def test_a_list_is_what_is_stored(client: TestClient, daemon: Any) -> None:
    """Reckoning every running request anew would be dear: a list never asks for it."""
    stale = make_record(provisional=True, energy_joules=1.0)
    daemon.add(stale)
    daemon.preview = None
    for accept in ("application/json", "application/x-ndjson"):
        answer = client.get("/v1/requests", headers={"Accept": accept})
        assert answer.status_code == 200
        assert '"energy_joules":1.0' in answer.text


@pytest.mark.parametrize(
    "path", ["/v1/requests/{}", "/v1/requests/{}?wait=0.1", "/v1/requests/{}/power"]
)
def test_reckoning_a_record_keeps_nobody_waiting(
    client: TestClient, daemon: Any, path: str
) -> None:
    """It is done beside the event loop, which has other clients."""
    record = make_record(provisional=True)
    calls: list[str] = []

    def preview(request_id: str) -> EnergyRecord:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        calls.append(request_id)
        return record

    daemon.preview = preview
    daemon.power = SimpleNamespace(host="elsewhere")
    assert client.get(path.format(record.id)).status_code == 200
    assert record.id in calls


def test_waiting_gives_the_final_record(client: TestClient, daemon: Any) -> None:
    """With `wait` a provisional record is answered once it is final, for 60 seconds at most."""
    provisional = make_record(provisional=True)
    daemon.previews[provisional.id] = provisional
    path = f"/v1/requests/{provisional.id}"
    assert client.get(path, params={"wait": 600}).json()["provisional"] is True
    daemon.finals[provisional.id] = replace(provisional, provisional=False)
    assert client.get(path, params={"wait": 1.5}).json()["provisional"] is False
    assert daemon.waits == [60.0, 1.5]


def test_nobody_waits_for_what_is_final_or_unknown(client: TestClient, daemon: Any) -> None:
    """A final record and a missing one are answered at once, and so is who does not ask to wait."""
    done, running = make_record(), make_record(provisional=True)
    daemon.add(done, running)
    assert client.get(f"/v1/requests/{done.id}?wait=5").status_code == 200
    assert client.get("/v1/requests/nobody?wait=5").status_code == 404
    assert client.get(f"/v1/requests/{running.id}").json()["provisional"] is True
    assert daemon.waits == []


@pytest.mark.parametrize("wait", ["-1", "nan", "soon"])
def test_a_wait_is_a_number_of_seconds(client: TestClient, wait: str) -> None:
    """Anything else is refused."""
    assert client.get(f"/v1/requests/x?wait={wait}").status_code == 422


BODY = {"backend": "ollama", "model": "tiny", "prompt": "2 + 2?"}


def test_a_prompt_is_sent_and_answered_with_its_energy(client: TestClient, daemon: Any) -> None:
    """All that was posted reaches the daemon; the answer is the record with the response."""
    more = {"options": {"seed": 1}, "tags": {"k": "v"}, "campaign": "c", "timeout_seconds": 2.5}
    answer = client.post("/v1/requests", json=BODY | more)
    assert answer.status_code == 200
    assert (answer.json()["response"], answer.json()["energy_joules"]) == ("four", 7.0)
    (sent,) = daemon.sent
    assert (sent.backend.name, sent.model, sent.prompt) == ("ollama", "tiny", "2 + 2?")
    assert (sent.options, sent.tags) == ({"seed": 1}, {"k": "v"})
    assert (sent.campaign, sent.task, sent.timeout_seconds) == ("c", None, 2.5)


def test_a_conversation_may_be_sent_instead(client: TestClient, daemon: Any) -> None:
    """Messages go through as they are."""
    messages = [{"role": "user", "content": "2 + 2?"}]
    body = {"backend": "ollama", "model": "tiny", "messages": messages}
    assert client.post("/v1/requests", json=body).status_code == 200
    assert daemon.sent[0].messages == tuple(messages)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": None}, "one of the two"),
        ({"messages": [{"role": "user", "content": "x"}]}, "one of the two"),
        ({"model": None}, "body.model"),
        ({"temprature": 0}, "body.temprature"),
        ({"tags": {"k": 1}}, "body.tags.k"),
        ({"timeout_seconds": 0}, "body.timeout_seconds"),
        ({"backend": "nobody"}, "there is no backend 'nobody'"),
    ],
)
def test_a_prompt_that_cannot_be_sent_is_refused(
    client: TestClient, daemon: Any, change: dict[str, Any], said: str
) -> None:
    """Each wrong field is a 422 that names it, and nothing is sent."""
    answer = client.post("/v1/requests", json=BODY | change)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert daemon.sent == []


@pytest.mark.parametrize(
    ("error", "status"), [(BackendError("it is away"), 502), (StoreError("it is full"), 503)]
)
def test_a_failure_behind_the_api_says_so(
    client: TestClient, daemon: Any, error: Exception, status: int
) -> None:
    """A backend that fails is a bad gateway, a store that fails makes the service unavailable."""
    daemon.refusal = error
    answer = client.post("/v1/requests", json=BODY)
    assert (answer.status_code, answer.json()["detail"]) == (status, str(error))


def test_a_database_that_fails_makes_the_service_unavailable(
    client: TestClient, engine: sa.Engine
) -> None:
    """Every reading route says what the database said, with a 503 and no traceback."""
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE requests RENAME TO gone")
    for path in ("/v1/requests", "/v1/requests/x"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["title"]) == (503, "Service Unavailable")
        assert "cannot be read: no such table: requests" in answer.json()["detail"]


def test_times_are_told_in_utc(client: TestClient, daemon: Any) -> None:
    """Microseconds stay, and the offset is Z."""
    record = make_record(started_at=datetime(2026, 1, 1, 8, 0, 0, 123456, tzinfo=UTC))
    daemon.add(record)
    told = client.get(f"/v1/requests/{record.id}").json()
    assert told["started_at"] == "2026-01-01T08:00:00.123456Z"
