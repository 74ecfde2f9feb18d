"""A window comes back as it was kept, and one whose daemon died says so."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from melodi.energy.record import Quality
from melodi.energy.window import WindowEnergy
from melodi.errors import StoreError
from melodi.ids import new_id
from melodi.store.records import RecordStore
from melodi.store.windows import Window, WindowStatus, WindowStore

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def windows(store: RecordStore, engine: sa.Engine) -> WindowStore:
    """On a database that knows two hosts."""
    for host in ("here", "there"):
        store.hosts.keep(host, seen_at=NOON, machine_id=None, cpu=None, inventory={})
    return WindowStore(engine)


def window(number: int = 0, **more: object) -> Window:
    known = {"id": new_id(number * 10**9), "host": "here", "started_at": NOON} | more
    return Window(**known)  # type: ignore[arg-type]


def test_a_window_comes_back_as_it_was_kept(windows: WindowStore) -> None:
    """Open at first, then with its energy by domain and the largest counts."""
    begun = window(name="epoch 1", labels={"a": "b"}, metadata={"deep": [1, {"x": None}]})
    windows.add(begun)
    assert windows.get(begun.id) == begun
    energy = WindowEnergy(
        joules=5.5,
        low_joules=5.0,
        high_joules=None,
        mean_watts=11.0,
        quality=Quality.GAP,
        scope="gpu",
        source="test",
        summable=True,
        reasons=("stall",),
    )
    ended = replace(
        begun,
        status=WindowStatus.ENDED,
        duration_seconds=0.5,
        joules=5.5,
        domains={"gpu:a": energy},
        samples=3,
        macs=2**63 - 1,
        params=1,
    )
    windows.replace(ended)
    assert windows.get(begun.id) == ended
    assert windows.get("nobody") is None


def test_pages_hold_every_window_once_newest_first(windows: WindowStore) -> None:
    """Whatever the size of the page."""
    kept = [window(number) for number in range(7)]
    for one in kept:
        windows.add(one)
    seen: list[Window] = []
    cursor = None
    while True:
        page = windows.page(cursor=cursor, limit=3)
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == kept[::-1]


def test_only_the_hosts_own_open_windows_are_interrupted(windows: WindowStore) -> None:
    """Their energy stays unknown; what has ended and what another host measures stays."""
    left, other = window(1), window(2, host="there")
    ended = window(3, status=WindowStatus.ENDED, joules=1.0)
    for one in (left, other, ended):
        windows.add(one)
    assert windows.interrupt("here") == 1
    assert windows.get(left.id) == replace(left, status=WindowStatus.INTERRUPTED)
    assert windows.get(other.id) == other
    assert windows.get(ended.id) == ended
    assert windows.interrupt("here") == 0


def test_a_database_that_fails_is_said(windows: WindowStore, engine: sa.Engine) -> None:
    """As the store's own error, which the API answers with 503."""
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE windows"))
    with pytest.raises(StoreError, match="windows"):
        windows.get("x")
    with pytest.raises(StoreError, match="windows"):
        windows.add(window())
