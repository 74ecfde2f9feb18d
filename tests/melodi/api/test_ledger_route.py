"""`/v1/ledger`."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from melodi.energy.accounts import MinuteAccounts
from melodi.store.loaded import LoadedMinute
from melodi.store.records import Batch

MINUTE = 29_453_760


@pytest.fixture(autouse=True)
def books(daemon: Any) -> None:
    """Two minutes of one domain; it is two and a half minutes later."""
    minutes = tuple(
        MinuteAccounts(domain="package:0", minute=MINUTE + n, measured_joules=10.0, idle_joules=4.0)
        for n in range(2)
    )
    daemon.store.apply([Batch(host="here", minutes=minutes)])
    daemon.clock.advance(150_000_000_000)


def test_the_ledger_is_told_by_domain_with_its_residual(client: TestClient) -> None:
    """One item a domain, all accounts in it, and what none of them holds."""
    answer = client.get("/v1/ledger").json()
    assert answer["next_cursor"] is None
    (line,) = answer["items"]
    assert (line["host"], line["domain"], line["minute"]) == ("here", "package:0", None)
    assert (line["measured_joules"], line["idle_joules"], line["active_joules"]) == (20.0, 8.0, 0.0)
    assert line["residual_joules"] == 12.0
    assert line["unmeasured_seconds"] == 0.0


def test_the_ledger_is_told_by_minute_from_a_moment_on(client: TestClient) -> None:
    """Durations count back from now; each minute says when it began."""
    answer = client.get("/v1/ledger?by=minute&since=2m").json()
    assert [line["minute"] for line in answer["items"]] == ["2026-01-01T00:01:00Z"]


def test_the_ledger_is_told_by_model(client: TestClient, daemon: Any) -> None:
    """What was loaded has its part of the idle joules, and what is of no model the rest."""
    held = [
        LoadedMinute(
            domain="package:0",
            minute=MINUTE,
            backend=backend,
            model=model,
            seconds=30.0,
            vram_byte_seconds=size,
        )
        for backend, model, size in (("", "", None), ("b", "tiny", 7.0))
    ]
    daemon.store.keep_loaded("here", held)
    tiny, rest = client.get("/v1/ledger?by=model").json()["items"]
    assert (tiny["model"], tiny["split"], tiny["idle_joules"]) == ("tiny", "vram", 4.0)
    assert (rest["model"], rest["split"], rest["idle_joules"]) == (None, None, 4.0)
    assert tiny["measured_joules"] + rest["measured_joules"] == 20.0
    assert rest["residual_joules"] == 12.0


@pytest.mark.parametrize(
    ("query", "said"),
    [("by=minute", "since=1h"), ("by=colour", "by"), ("since=x", "no moment"), ("form=1", "form")],
)
def test_a_question_of_the_ledger_may_be_refused(client: TestClient, query: str, said: str) -> None:
    """A span without a beginning by minute, and what is unknown, are 422 with a reason."""
    answer = client.get(f"/v1/ledger?{query}")
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
