"""What is kept of hosts and their domains."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from energy_records import make_record

from collectors.base import Domain, Kind, Measure
from melodi.errors import StoreError
from melodi.store.records import Batch, RecordStore
from melodi.store.schema import hosts

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def package(**changes: object) -> Domain:
    """A power domain."""
    plain: dict[str, object] = {
        "name": "package:0",
        "kind": Kind.CPU,
        "scope": "package",
        "source": "rapl:powercap",
        "measure": Measure.COUNTER,
    }
    return Domain(**(plain | changes))  # type: ignore[arg-type]


def test_idle_watts_are_remembered_by_host_and_domain(store: RecordStore) -> None:
    """What was learned of idle power outlives the domain's next description."""
    dram = package(name="dram:0", kind=Kind.DRAM)
    for host in ("here", "there"):
        store.hosts.keep_domains(host, [package(), dram], seen_at=NOW)
    assert store.hosts.idle_watts("here") == {}
    store.hosts.keep_idle_watts("here", {"package:0": 41.5, "dram:0": 0.0})
    store.hosts.keep_domains("here", [package(scope="die")], seen_at=NOW)
    assert store.hosts.idle_watts("here") == {"package:0": 41.5, "dram:0": 0.0}
    assert store.hosts.idle_watts("there") == {}


def test_idle_watts_of_an_unknown_domain_are_refused(store: RecordStore) -> None:
    """A domain that was never described is named in the error, and nothing is kept."""
    store.hosts.keep_domains("here", [package()], seen_at=NOW)
    with pytest.raises(StoreError, match=r"'gpu:x'; call keep_domains first"):
        store.hosts.keep_idle_watts("here", {"package:0": 1.0, "gpu:x": 2.0})
    assert store.hosts.idle_watts("here") == {}


def test_a_host_keeps_its_first_day_and_its_count(store: RecordStore, engine: sa.Engine) -> None:
    """Describing a host again renews the rest, and its records go on being numbered."""
    later = datetime(2026, 2, 1, tzinfo=UTC)
    store.apply([Batch(host="here", records=(make_record(1),))])
    for moment in (NOW, later):
        store.hosts.keep("here", seen_at=moment, machine_id="m", cpu="c", inventory={"gpus": [1]})
    second = make_record(2)
    assert store.apply([Batch(host="here", records=(second,))]) == {second.id: 2}
    kept = sa.select(hosts.c["inventory", "first_seen_at", "last_seen_at", "last_seq"])
    with engine.connect() as connection:
        row = connection.execute(kept).one()
    assert tuple(row) == ({"gpus": [1]}, NOW, later, 2)
