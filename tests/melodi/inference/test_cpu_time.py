"""No CPU time of a tree is lost, whoever ends in between, and none is counted twice."""

from hypothesis import given
from hypothesis import strategies as st
from process_table import FakeProcesses

from melodi.clock import NS_PER_SECOND
from melodi.inference.cpu_time import CpuMeter
from melodi.inference.discovery import trees

ROOT = 10


def gained(meter: CpuMeter, table: FakeProcesses) -> int | None:
    pids = trees([ROOT], table.parents())
    return meter.gained_ns({pid: table.processes[pid] for pid in pids})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["spend", "fork", "end", "look"]),
            st.integers(0, 20),
            st.integers(1, 5),
        ),
        max_size=60,
    )
)
def test_what_is_gained_adds_up_to_what_was_spent(steps: list[tuple[str, int, int]]) -> None:
    """Processes fork, work and end as they like; their parents wait for them."""
    table, meter, spent, told = FakeProcesses(), CpuMeter(), 0, 0
    table.start(ROOT)
    table.start(99, "foreign")
    gained(meter, table)
    next_pid = 100
    for what, which, seconds in steps:
        tree = sorted(trees([ROOT], table.parents()))
        pid = tree[which % len(tree)]
        leaf = pid not in table.parents().values()
        if what == "spend":
            table.spend(pid, seconds)
            table.spend(99, 1)
            spent += seconds
        elif what == "fork":
            table.start(next_pid, parent=pid)
            next_pid += 1
        elif what == "end" and pid != ROOT and leaf:
            table.end(pid)
        elif what == "look":
            told += gained(meter, table) or 0
    told += gained(meter, table) or 0
    assert told == spent * NS_PER_SECOND


def test_the_first_look_tells_nothing() -> None:
    """What was done before is no gain."""
    table, meter = FakeProcesses(), CpuMeter()
    table.start(ROOT)
    table.spend(ROOT, 100)
    assert gained(meter, table) is None
    assert gained(meter, table) == 0


def test_a_child_that_nobody_waited_for_takes_nothing_away() -> None:
    """Its last moments are lost, and the others' gains stay what they are."""
    table, meter = FakeProcesses(), CpuMeter()
    table.start(ROOT)
    table.start(11, parent=ROOT)
    table.spend(11, 5)
    gained(meter, table)
    table.spend(ROOT, 2)
    table.end(11, reaped=False)
    assert gained(meter, table) == 2 * NS_PER_SECOND


def test_a_pid_that_is_used_again_is_another_process() -> None:
    """Its time counts from its own beginning."""
    table, meter = FakeProcesses(), CpuMeter()
    table.start(ROOT)
    table.start(11, parent=ROOT)
    table.spend(11, 5)
    gained(meter, table)
    table.end(11)
    table.start(11, parent=ROOT)
    table.spend(11, 1)
    assert gained(meter, table) == NS_PER_SECOND
