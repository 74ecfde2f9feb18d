"""Windows over HTTP: begun, ended once, found again."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from collectors.base import Domain, Kind, Measure, Reading
from melodi.clock import VirtualClock, to_datetime
from melodi.daemon.windows import Windows
from melodi.sampling.meters import EnergyCurve
from melodi.store.windows import WindowStore

MS = 1_000_000
WATTS = {"gpu:a": 200, "package:0": 50, "psys:0": 300}


class Meters:
    """Curves at constant power that move with the clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.dead: set[str] = set()
        self.curves = {
            name: EnergyCurve(
                Domain(
                    name=name,
                    kind=Kind.CPU,
                    scope="x",
                    source="test",
                    measure=Measure.COUNTER,
                    refresh_ns=MS,
                    summable=name != "psys:0",
                )
            )
            for name in WATTS
        }

    def run(self, seconds: float) -> None:
        """Read every 50 ms for so long."""
        for _ in range(round(seconds * 20)):
            self.clock.advance(50 * MS)
            self.read()

    def read(self, after_ns: int = 0) -> None:
        at_ns = self.clock.monotonic_ns() + after_ns
        for name in self.curves.keys() - self.dead:
            self.curves[name].feed(Reading(name, at_ns, 0, energy_uj=WATTS[name] * at_ns // 1_000))


@pytest.fixture
def meters(daemon: Any, engine: sa.Engine) -> Meters:
    """A daemon that measures three domains."""
    daemon.store.hosts.keep(
        "here", seen_at=to_datetime(daemon.clock.wall_ns()), machine_id=None, cpu=None, inventory={}
    )
    meters = Meters(daemon.clock)
    daemon.windows = Windows(WindowStore(engine), meters.curves, host="here", clock=daemon.clock)
    meters.run(1)
    return meters


@pytest.fixture
def end(client: TestClient, meters: Meters) -> Callable[..., Any]:
    """Ends a window; its meters are read once more after that."""

    def end(window_id: str, **said: Any) -> Any:
        meters.read(after_ns=20 * MS)
        return client.post(f"/v1/windows/{window_id}/end", json=said)

    return end


def test_a_window_gives_joules_by_domain_and_per_sample(
    client: TestClient, meters: Meters, end: Callable[..., Any]
) -> None:
    """Psys is shown and not added; what is told at the end completes what was told at first."""
    said = {"name": "epoch 1", "labels": {"run": "7"}, "metadata": {"a": 1, "b": [2]}, "macs": 100}
    begun = client.post("/v1/windows", json=said)
    assert begun.status_code == 201
    assert begun.json()["status"] == "open"
    assert begun.json()["joules"] is None
    assert begun.json()["domains"] == {}
    meters.run(4)
    ended = end(begun.json()["id"], samples=10, params=20, metadata={"a": 3})
    assert ended.status_code == 200, ended.text
    found = ended.json()
    assert found["status"] == "ended"
    assert found["duration_seconds"] == pytest.approx(4)
    assert {name: one["joules"] for name, one in found["domains"].items()} == {
        name: pytest.approx(4 * watts, rel=1e-3) for name, watts in WATTS.items()
    }
    assert found["joules"] == pytest.approx(1_000, rel=1e-3)
    assert found["domains"]["gpu:a"]["quality"] == "measured"
    assert found["domains"]["psys:0"]["summable"] is False
    assert found["joules_per_sample"] == pytest.approx(100, rel=1e-3)
    assert found["work_per_joule"] == pytest.approx(1, rel=1e-3)
    assert found["macs_per_parameter"] == 5
    assert found["metadata"] == {"a": 3, "b": [2]}
    assert found["labels"] == {"run": "7"}
    assert client.get(f"/v1/windows/{found['id']}").json() == found
    assert client.get("/v1/windows").json() == {"items": [found], "next_cursor": None}


def test_a_window_ends_once(client: TestClient, meters: Meters, end: Callable[..., Any]) -> None:
    """The second end is a conflict and changes nothing."""
    window_id = client.post("/v1/windows", json={}).json()["id"]
    meters.run(1)
    first = end(window_id).json()
    again = end(window_id)
    assert again.status_code == 409
    assert "ended already" in again.json()["detail"]
    assert client.get(f"/v1/windows/{window_id}").json() == first


def test_one_unmeasured_domain_leaves_the_sum_unknown(
    client: TestClient, meters: Meters, end: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Null with a reason, never 0."""
    monkeypatch.setattr("melodi.sampling.settle.SETTLE_SECONDS", 0.05)
    meters.dead.add("gpu:a")
    # The other need not be waited for.
    meters.read(after_ns=20 * MS)
    window_id = client.post("/v1/windows", json={"samples": 2}).json()["id"]
    meters.run(1)
    found = end(window_id).json()
    assert found["joules"] is None
    assert found["joules_per_sample"] is None
    assert found["domains"]["gpu:a"]["joules"] is None
    assert found["domains"]["gpu:a"]["reasons"] == ["past_last_edge"]
    assert found["domains"]["package:0"]["joules"] == pytest.approx(50, rel=1e-3)


def test_pages_are_followed_by_their_cursor(client: TestClient, meters: Meters) -> None:
    """Newest first."""
    ids = []
    for _ in range(3):
        meters.clock.advance(MS)
        ids.append(client.post("/v1/windows", json={}).json()["id"])
    first = client.get("/v1/windows", params={"limit": 2}).json()
    second = client.get("/v1/windows", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [one["id"] for one in first["items"] + second["items"]] == ids[::-1]


@pytest.mark.parametrize(
    "said",
    [
        {"samples": 0},
        {"macs": -1},
        {"params": 2**63},
        {"labels": {"a": 1}},
        {"metadata": {"too large": 2**70}},
        {"sample": 1},
        [],
    ],
)
def test_what_makes_no_sense_is_refused(client: TestClient, meters: Meters, said: Any) -> None:
    """Counts below 1 or too large to keep, labels that are no text, misspelt words."""
    assert client.post("/v1/windows", json=said).status_code == 422


def test_a_window_that_is_not_there_is_404(client: TestClient, meters: Meters) -> None:
    """Asked for or ended."""
    assert client.get("/v1/windows/nobody").status_code == 404
    assert client.post("/v1/windows/nobody/end", json={}).status_code == 404


def test_text_that_no_database_holds_is_cleaned(client: TestClient, meters: Meters) -> None:
    """A NUL becomes U+FFFD."""
    found = client.post("/v1/windows", json={"name": "a\0b"}).json()
    assert found["name"] == "a\ufffdb"
