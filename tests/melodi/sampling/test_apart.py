"""Both ways of sampling keep the same promises; a process of its own may die and is replaced."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from powercap_tree import PowercapTree
from waiting import PATIENCE_SECONDS, wait_for

from collectors.base import Domain, Kind, Measure
from collectors.registry import Probe, State
from melodi.clock import SystemClock
from melodi.energy.bins import Bin
from melodi.sampling.apart import ApartSampler, _merged
from melodi.sampling.plan import Plan
from melodi.sampling.process import MeterProcess, Refused, Told
from melodi.sampling.sampler import Sampler, Sampling
from melodi.sampling.station import Sample
from melodi.sampling.watch import MeterWatch

CLOCK = SystemClock()
MS = 1_000_000


@pytest.fixture
def tree() -> Iterator[PowercapTree]:
    """A package whose counter runs, and one whose counter stands still."""
    with tempfile.TemporaryDirectory() as folder:
        one = PowercapTree(Path(folder))
        one.add("intel-rapl:0", "package-0")
        one.add("intel-rapl:1", "package-1")
        with one.drawing({"intel-rapl:0": 100.0}):
            yield one


@pytest.fixture
def plan(tree: PowercapTree) -> Plan:
    return Plan(
        use="auto",
        sysfs_root=tree.root,
        simulated_url=None,
        gpu_period_ns=10 * MS,
        other_period_ns=10 * MS,
    )


class Rig:
    """A sampler that runs, and all that it told."""

    def __init__(self) -> None:
        self.sampler: Sampling
        self.samples: list[Sample] = []
        self.process: MeterProcess | None = None

    @property
    def bins(self) -> list[Bin]:
        return [bin_ for one in list(self.samples) for bin_ in one.bins]


@pytest.fixture(params=["thread", "process"])
def rig(
    request: pytest.FixtureRequest, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rig]:
    """Either way of sampling, taking up what comes later by itself."""
    rig = Rig()
    if request.param == "process":
        yield from apart(rig, plan)
        return
    monkeypatch.setattr("melodi.sampling.watch.FIRST_WAIT_SECONDS", 0.2)
    probes = plan.probe(CLOCK.monotonic_ns)
    sampler = Sampler(probes, period_of=plan.period_ns, clock=CLOCK, on_sample=rig.samples.append)
    watch = MeterWatch(plan, probes, clock=CLOCK, on_change=sampler.follow)
    rig.sampler = sampler
    sampler.start()
    watch.start()
    yield rig
    watch.stop()
    sampler.stop()


def apart(rig: Rig, plan: Plan) -> Iterator[Rig]:
    rig.process = MeterProcess(plan)
    message = rig.process.receive(PATIENCE_SECONDS)
    assert isinstance(message, Told)
    rig.sampler = ApartSampler(
        plan,
        rig.process,
        message.probes,
        clock=CLOCK,
        on_sample=rig.samples.append,
        on_change=lambda probes: rig.sampler.follow(probes),  # noqa: PLW0108  it is not there yet
    )
    rig.sampler.start()
    yield rig
    rig.sampler.stop()


@pytest.fixture
def own(plan: Plan) -> Iterator[Rig]:
    """Sampling in a process of its own."""
    yield from apart(Rig(), plan)


def check_energy(rig: Rig, watts: float, *, domain: str = "package:0") -> None:
    """No microjoule between two bins is lost or made, and in the mean they show the power."""

    def bins() -> list[Bin]:
        return [one for one in rig.bins if one.domain == domain]

    # The counter comes late where its thread does: the longer, the less that matters.
    wait_for(lambda: abs(mean_watts(bins()) - watts) < 0.05 * watts)
    for before, after in pairwise(bins()):
        assert before.end_ns == after.start_ns
        assert after.total_uj == before.total_uj + (after.energy_uj or 0)


def mean_watts(bins: list[Bin]) -> float:
    joules = sum(one.energy_uj or 0 for one in bins) / 1e6
    return joules * 1e9 / (bins[-1].end_ns - bins[0].start_ns)


def test_the_curves_hold_what_the_counters_gained(rig: Rig) -> None:
    """Edges come at the period asked for, in the time of this process's own clock."""
    wait_for(lambda: len(rig.bins) > 50)
    check_energy(rig, 100)
    assert abs(CLOCK.monotonic_ns() - rig.bins[-1].end_ns) < PATIENCE_SECONDS * 1_000 * MS
    assert [one.name for one in rig.sampler.domains] == ["package:0", "package:1"]
    assert [one.name for one in rig.sampler.stations] == ["rapl"]
    assert rig.sampler.stations[0].is_up
    assert rig.sampler.faults == []
    assert rig.sampler.curves["package:0"].edges


def test_a_zone_that_comes_later_is_measured_beside_the_others(
    rig: Rig, tree: PowercapTree
) -> None:
    """Taken up while the rest goes on; the curve that was there has no gap."""
    wait_for(lambda: rig.bins)
    tree.add("intel-rapl:0:0", "dram")
    with tree.drawing({"intel-rapl:0:0": 20.0}):
        wait_for(lambda: "dram:0" in rig.sampler.curves)
        wait_for(lambda: len(rig.sampler.curves["dram:0"].edges) > 20)
    assert not [one for one in rig.bins if one.domain == "package:0" and one.energy_uj is None]
    check_energy(rig, 100)


def test_a_zone_that_fails_is_a_fault_until_it_is_back(rig: Rig, tree: PowercapTree) -> None:
    """The reason comes through, the other zone goes on, and the fault ends with its cause."""
    wait_for(lambda: rig.bins)
    file = tree.energy_file("intel-rapl:1")
    file.chmod(0o600)
    file.write_text("garbage\n")
    wait_for(lambda: any("garbage" in one for one in rig.sampler.faults))
    assert "rapl: package:1 cannot be read" in rig.sampler.faults[0]
    assert not rig.sampler.stations[0].is_up
    file.write_text("5\n")
    wait_for(lambda: not rig.sampler.faults)
    assert not [one for one in rig.bins if one.reason]
    check_energy(rig, 100)


def test_after_the_stop_nothing_is_read_and_nothing_is_at_fault(rig: Rig) -> None:
    """And no process is left."""
    wait_for(lambda: rig.bins)
    rig.sampler.stop()
    assert rig.sampler.faults == []
    if rig.process is not None:
        assert not alive(rig.process.pid)


# ---- a process of its own ------------------------------------------------------------------


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_process_that_dies_is_replaced_and_no_joule_is_lost(own: Rig) -> None:
    """The counter ran on, so a long bin of measured energy spans the pause."""
    assert own.process is not None
    wait_for(lambda: own.bins)
    os.kill(own.process.pid, signal.SIGKILL)
    wait_for(lambda: own.sampler.faults)
    assert "exit code -9" in own.sampler.faults[0]
    seen = len(own.bins)
    wait_for(lambda: len(own.bins) > seen + 20)
    wait_for(lambda: not own.sampler.faults)
    check_energy(own, 100)
    pause = max(own.bins, key=lambda one: one.length_ns)
    assert pause.energy_uj is not None
    assert pause.length_ns > 400 * MS


def test_its_cpu_time_is_told_and_goes_on_over_a_restart(own: Rig) -> None:
    """Whoever asks what MELODI costs is told of both processes, the dead one too."""
    assert own.process is not None
    wait_for(lambda: own.bins)
    before = own.sampler.cpu_seconds
    assert before > 0
    os.kill(own.process.pid, signal.SIGKILL)
    wait_for(lambda: own.sampler.faults)
    wait_for(lambda: not own.sampler.faults)
    wait_for(lambda: own.sampler.cpu_seconds > before)


def test_one_that_is_stopped_is_silent_and_then_one_long_bin(own: Rig) -> None:
    """The station says for how long; nothing is measured twice when it goes on."""
    assert own.process is not None
    wait_for(lambda: own.bins)
    os.kill(own.process.pid, signal.SIGSTOP)
    wait_for(lambda: own.sampler.faults)
    assert re.fullmatch(r"rapl has not answered for \d+ s", own.sampler.faults[0])
    wait_for(lambda: own.sampler.faults != ["rapl has not answered for 1 s"])
    os.kill(own.process.pid, signal.SIGCONT)
    wait_for(lambda: not own.sampler.faults)
    seen = len(own.bins)
    wait_for(lambda: len(own.bins) > seen + 5)
    assert "stall" in {one.reason for one in own.bins}
    check_energy(own, 100)


def test_ctrl_c_and_sigterm_do_not_end_it_before_its_parent(own: Rig) -> None:
    """The last joules are still read while the daemon settles its requests."""
    assert own.process is not None
    wait_for(lambda: own.bins)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(own.process.pid, number)
    seen = len(own.bins)
    wait_for(lambda: len(own.bins) > seen + 10)
    wait_for(lambda: not own.sampler.faults)


PARENT = """
import sys, time
from pathlib import Path
from melodi.sampling.plan import Plan
from melodi.sampling.process import MeterProcess
plan = Plan(use="auto", sysfs_root=Path(sys.argv[1]), simulated_url=None,
            gpu_period_ns=10**7, other_period_ns=10**7)
process = MeterProcess(plan)
assert process.receive(30)
print(process.pid, flush=True)
time.sleep(600)
"""


def test_it_ends_when_its_parent_is_killed(tree: PowercapTree) -> None:
    """Nobody is left to tell it to; it notices by itself."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tree.root)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    wait_for(lambda: not alive(child))


def test_a_meter_that_does_not_exist_is_refused_in_words(plan: Plan) -> None:
    """As it is where the meters are read in the daemon itself."""
    process = MeterProcess(
        Plan(
            use=("nvlm",),
            sysfs_root=plan.sysfs_root,
            simulated_url=None,
            gpu_period_ns=1,
            other_period_ns=1,
        )
    )
    message = process.receive(30)
    assert isinstance(message, Refused)
    assert "nvlm" in message.reason
    assert process.close() == 0
    process.let_go()


# ---- what a new process finds --------------------------------------------------------------


def found(name: str, *domains: str) -> Probe:
    return Probe(
        name=name,
        state=State.OK if domains else State.ABSENT,
        reason=None if domains else "no driver",
        elsewhere=tuple(
            Domain(name=one, kind=Kind.CPU, scope="s", source="t:x", measure=Measure.COUNTER)
            for one in domains
        ),
    )


def test_a_meter_that_a_new_process_lacks_is_away_not_gone() -> None:
    """Its curve stays, it is failing with the new reason, and no guess is put in its place."""
    known = [found("nvml", "gpu:a"), found("rapl", "package:0")]
    merged = _merged([found("nvml"), found("rapl", "package:0", "dram:0")], known)
    assert [(one.name, one.state, len(one.domains)) for one in merged] == [
        ("nvml", State.FAILING, 1),
        ("rapl", State.OK, 2),
    ]
    assert merged[0].reason == "no driver"
    without = _merged([found("nvml"), found("rapl"), found("estimate", "package:0")], known)
    assert [one.domains for one in without] == [one.domains for one in known]


def test_an_estimate_makes_room_and_comes_where_there_is_nothing_else() -> None:
    """It alone may go."""
    guess, gpu = found("estimate", "package:0"), found("nvml", "gpu:a")
    assert _merged([gpu], [found("nvml"), guess]) == [gpu]
    assert _merged([found("nvml"), guess], []) == [found("nvml"), guess]
