"""A backend's processes are followed while they come and go."""

import pytest
from process_table import FakeProcesses

from melodi.clock import NS_PER_SECOND
from melodi.inference.discovery import Presence
from melodi.inference.placement import FIND_EVERY_NS, Follower, Watched

URL = "http://127.0.0.1:8000"


@pytest.fixture
def table() -> FakeProcesses:
    table = FakeProcesses()
    table.start(10, "ollama")
    table.ports["127.0.0.1", 8000] = {10}
    return table


def follow(table: FakeProcesses, **more: str | int) -> Follower:
    return Follower(Watched(name="b", url=URL, **more), table)  # type: ignore[arg-type]


def test_a_child_that_comes_later_counts_from_its_beginning(table: FakeProcesses) -> None:
    """Ollama starts a runner for a model, and the runner does the work."""
    follower = follow(table)
    assert follower.look(0)[1] is None
    table.spend(table.start(11, "runner", parent=10), 3)
    placement, gained_ns = follower.look(1)
    assert placement.root is not None
    assert placement.root.name == "ollama"
    assert placement.pids == {10, 11}
    assert gained_ns == 3 * NS_PER_SECOND


def test_a_worker_whose_parent_ended_still_belongs_to_it(table: FakeProcesses) -> None:
    """It has another parent by then, and works for the backend all the same."""
    table.start(11, "starter", parent=10)
    table.start(12, "worker", parent=11)
    follower = follow(table)
    follower.look(0)
    table.end(11)
    table.spend(12, 2)
    placement, gained_ns = follower.look(1)
    assert placement.pids == {10, 12}
    assert gained_ns == 2 * NS_PER_SECOND


def test_a_restarted_server_is_found_at_once_and_begins_anew(table: FakeProcesses) -> None:
    """What the new one did before it was found is not known; then it is."""
    follower = follow(table)
    follower.look(0)
    table.end(10)
    assert follower.look(1)[0].found.presence is Presence.ABSENT
    assert follower.look(2)[1] is None
    table.ports["127.0.0.1", 8000] = {table.start(20, "ollama")}
    table.spend(20, 9)
    placement, gained_ns = follower.look(FIND_EVERY_NS + 2)
    assert (placement.pids, gained_ns) == ({20}, None)
    table.spend(20, 1)
    assert follower.look(FIND_EVERY_NS + 3)[1] == NS_PER_SECOND


def test_a_pid_that_another_process_has_now_is_not_followed(table: FakeProcesses) -> None:
    """The pid came back with a process that has nothing to do with it."""
    follower = follow(table)
    follower.look(0)
    table.end(10)
    table.start(10, "cron")
    assert follower.look(1)[0].pids == frozenset()


def test_a_server_that_is_hidden_gained_nobody_knows_what(table: FakeProcesses) -> None:
    """Unknown, not 0."""
    table.ports.clear()
    table.hidden.add(8000)
    follower = follow(table)
    assert follower.look(0)[1] is None
    assert follower.look(1)[1] is None


def test_a_cgroup_of_its_own_tells_its_cpu_time(table: FakeProcesses) -> None:
    """Finer than its processes, and with those that came and went in between."""
    table.cgroups["/ollama.service"] = {10}
    follower = follow(table)
    assert follower.look(0)[0].cpu_time_from == "cgroup"
    table.spend(10, 1)
    table.cgroup_ns["/ollama.service"] += 5
    assert follower.look(1)[1] == NS_PER_SECOND + 5


def test_a_cgroup_that_holds_others_too_is_not_taken(table: FakeProcesses) -> None:
    """A login session holds whatever its user starts; when they end, it is its own."""
    table.cgroups["/session.scope"] = {10, table.start(99, "make")}
    follower = follow(table)
    assert follower.look(0)[0].cpu_time_from == "processes"
    table.spend(99, 50)
    table.spend(10, 1)
    assert follower.look(1)[1] == NS_PER_SECOND
    table.end(99)
    table.spend(10, 2)
    assert follower.look(2)[1] == 2 * NS_PER_SECOND
    assert follower.look(3)[0].cpu_time_from == "cgroup"


def test_a_named_cgroup_is_followed_with_all_that_is_in_it(table: FakeProcesses) -> None:
    """Also where nobody in it listens."""
    table.cgroups["/vllm"] = {20, 21}
    table.start(20)
    table.start(21)
    follower = follow(table, process="cgroup:/vllm")
    placement, _ = follower.look(0)
    assert (placement.pids, placement.root) == ({20, 21}, None)
    table.spend(21, 4)
    table.spend(10, 4)
    assert follower.look(1)[1] == 4 * NS_PER_SECOND
