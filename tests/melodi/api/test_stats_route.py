"""`/v1/stats`, `/v1/series`, `/v1/hosts`, `/v1/models`, `/v1/doctor`."""

from datetime import timedelta
from typing import Any

import pytest
from energy_records import make_record
from starlette.testclient import TestClient

from melodi.energy.record import EnergyRecord, Quality
from melodi.store.figures import Rates


def served(number: int, **changes: Any) -> EnergyRecord:
    """A record that began so many seconds after the start of 2026, of `number` joules."""
    plain = {"footprint": "gpu", "origin": "sensor", "output_tokens": 10, "input_tokens": 30}
    return make_record(number, **(plain | changes))


@pytest.fixture(autouse=True)
def books(daemon: Any) -> None:
    """Three records within two minutes, one of them doubtful; it is ten minutes later."""
    daemon.add(served(1), served(2, model="big"), served(90), served(3, quality=Quality.GAP))
    daemon.clock.advance(600_000_000_000)


def test_statistics_tell_their_error_and_what_was_left_out(client: TestClient) -> None:
    """One item a group with its footprint and origin; the doubtful one is counted apart."""
    answer = client.get("/v1/stats?by=model").json()
    assert answer["next_cursor"] is None
    assert answer["percentile_error_ratio"] == 0.01
    big, tiny = answer["items"]
    assert (big["model"], tiny["model"]) == ("big", "tiny")
    assert (tiny["footprint"], tiny["origin"]) == ("gpu", "sensor")
    assert (tiny["count"], tiny["left_out"]) == (2, {"gap": 1})
    assert tiny["joules_per_request"]["sum"] == 91.0
    assert tiny["joules_per_request"]["mean"] == 45.5
    assert tiny["joules_per_output_token"]["mean"] == 91.0 / 20
    assert tiny["joules_per_token"]["mean"] == 91.0 / 80
    assert tiny["grams_co2e"] is None
    assert "started_at" not in tiny
    assert "backend" not in tiny


def test_rates_come_from_the_settings(client: TestClient, daemon: Any) -> None:
    """With grams and a price there is carbon and cost."""
    daemon.rates = Rates(grams_per_kwh=500.0, price_per_kwh=0.2)
    (all_,) = client.get("/v1/stats").json()["items"]
    assert all_["watt_hours"] == pytest.approx(93 / 3600)
    assert all_["grams_co2e"] == pytest.approx(93 / 3600 / 1000 * 500)
    assert all_["cost_per_million_tokens"] == pytest.approx(93 / 120 * 1e6 / 3.6e6 * 0.2)


def test_a_series_has_a_bucket_for_each_step_in_which_something_began(client: TestClient) -> None:
    """Two minutes with records, in order, each with its figures; those filters hold."""
    items = client.get("/v1/series?step=60s&since=1h&by=model&model=tiny").json()["items"]
    assert [one["started_at"] for one in items] == ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"]
    assert [one["count"] for one in items] == [1, 1]
    assert [one["joules_per_request"]["sum"] for one in items] == [1.0, 90.0]


def test_many_rows_are_read_by_a_process_of_its_own(
    client: TestClient, daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the same, byte for byte, and the daemon's own process reads nothing."""
    for path in ("/v1/stats?by=task,model&tag=a:b", "/v1/series?step=60s&since=1h"):
        here = client.get(path)
        assert daemon.jobs == []
        with monkeypatch.context() as patch:
            patch.setattr("melodi.api.stats.MOST_ROWS_HERE", -1)
            there = client.get(path)
        assert len(daemon.jobs) == 1
        daemon.jobs.clear()
        assert there.status_code == 200
        assert there.content == here.content


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/stats?by=color", "host, backend, model"),
        ("/v1/stats?since=x", "no moment"),
        ("/v1/stats?limit=3", "limit"),
        ("/v1/series?step=60s", "since=1h"),
        ("/v1/series?since=1h", "step"),
        ("/v1/series?since=1h&step=0s", "60s"),
        ("/v1/series?since=1h&step=1.5s", "60s"),
        ("/v1/series?since=7d&step=1s", "longer step"),
    ],
)
def test_a_question_that_makes_no_sense_is_explained(
    client: TestClient, path: str, said: str
) -> None:
    """422 with what is wrong and what to write."""
    answer = client.get(path)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_hosts_and_models_are_listed(client: TestClient, daemon: Any) -> None:
    """What is known of each host, and what was served where, when and how often."""
    moment = make_record().started_at + timedelta(days=1)
    daemon.store.hosts.keep(
        "here", seen_at=moment, machine_id="m", cpu="a cpu", inventory={"cpu_count": 8}
    )
    (host,) = client.get("/v1/hosts").json()["items"]
    assert (host["name"], host["cpu"], host["records"]) == ("here", "a cpu", 4)
    assert host["inventory"] == {"cpu_count": 8}
    assert host["last_seen_at"] == "2026-01-02T00:00:00Z"
    big, tiny = client.get("/v1/models").json()["items"]
    assert (big["model"], big["count"]) == ("big", 1)
    assert (tiny["host"], tiny["backend"], tiny["count"]) == ("here", "ollama", 3)
    assert tiny["last_hour"] == "2026-01-01T00:00:00Z"


def test_the_doctor_answers_for_the_running_daemon(client: TestClient) -> None:
    """The shape of `melodi doctor --json`."""
    assert client.get("/v1/doctor").json() == {
        "collectors": [],
        "backends": [{"name": "ollama", "up": False}],
        "measurable": False,
    }
