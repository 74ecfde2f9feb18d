"""`/v1/compare`."""

from typing import Any

import pytest
from energy_records import make_record
from starlette.testclient import TestClient


@pytest.fixture(autouse=True)
def books(daemon: Any) -> None:
    """Five records of each of two models, one of which takes four times as much."""
    for model, joules in (("small", 10.0), ("big", 40.0)):
        daemon.add(
            *(
                make_record(
                    n,
                    model=model,
                    energy_joules=joules + n,
                    output_tokens=10,
                    footprint="gpu",
                    origin="sensor",
                )
                for n in range(5)
            )
        )


URL = "/v1/compare?by=model&a=small&b=big"


@pytest.mark.parametrize("apart", [False, True])
def test_two_models_are_compared(
    client: TestClient, daemon: Any, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    """The same answer whether few rows are read here or many in a process of their own."""
    if apart:
        monkeypatch.setattr("melodi.api.compare.MOST_ROWS_HERE", 9)
    answer = client.get(URL)
    assert answer.status_code == 200
    told = answer.json()
    assert told["joules_per_output_token"]["a"] == 1.2
    assert told["joules_per_output_token"]["ratio"] == pytest.approx(12 / 42)
    assert told["joules_per_output_token"]["lower"] == "a"
    assert told["joules_per_token"]["ratio"] is None
    assert (told["a"]["value"], told["a"]["count"]) == ("small", 5)
    assert (told["confidence"], told["method"]) == (0.95, "jackknife")
    assert len(daemon.jobs) == apart


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("/v1/compare?by=model&a=small", "b"),
        (URL.replace("big", "absent"), "no record with model 'absent'"),
        (URL + "&footprint=cpu", "no record"),
        (URL + "&colour=red", "colour"),
    ],
)
def test_a_comparison_may_be_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, query: str, said: str, apart: bool
) -> None:
    """422 with what to do, from whichever process."""
    if apart:
        monkeypatch.setattr("melodi.api.compare.MOST_ROWS_HERE", -1)
    answer = client.get(query)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_unlike_footprints_are_a_problem_with_a_remedy(client: TestClient, daemon: Any) -> None:
    """problem+json says which filter to add."""
    daemon.add(make_record(9, model="big", footprint="gpu+cpu", origin="sensor"))
    answer = client.get(URL)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "add footprint=gpu" in answer.json()["detail"]
    assert client.get(URL + "&footprint=gpu").json()["b"]["count"] == 5
