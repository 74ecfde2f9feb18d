"""What MELODI says that it costs."""

from typing import Any

import pytest

from collectors.base import Domain, Kind, Measure, Reading
from melodi.daemon.own_cost import OwnCost
from melodi.sampling.meters import EnergyCurve

SECOND = 1_000_000_000


class Host:
    """A package, its memory and a GPU; time, work and energy as they are set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.curves = {name: curve(name, kind) for name, kind in KINDS.items()}
        self.cpu_seconds = 0.0
        """Of the processes that work for this one."""
        self.idle: dict[str, float] = {"package:0": 40.0, "gpu:a": 50.0}
        self._busy, self._own, self._at_ns = 0.0, 0.0, 0
        monkeypatch.setattr("melodi.daemon.own_cost.psutil.cpu_times", self._times)
        monkeypatch.setattr("melodi.daemon.own_cost.time.process_time", lambda: self._own)
        self.cost = OwnCost(self, [lambda: self.cpu_seconds], lambda: self.idle)  # type: ignore[arg-type]

    def pass_time(self, seconds: int, *, busy: float, own: float, watts: float) -> None:
        self._busy, self._own = self._busy + busy, self._own + own
        for _ in range(seconds * 10):
            self._at_ns += SECOND // 10
            for name, one in self.curves.items():
                total_uj = one.total_uj + round(watts * 100_000)  # type: ignore[attr-defined]
                one.total_uj = total_uj  # type: ignore[attr-defined]
                one.feed(Reading(name, self._at_ns, 0, energy_uj=total_uj))

    def _times(self) -> Any:
        passed = self._at_ns / SECOND
        fields = {"user": self._busy, "idle": 2 * passed, "iowait": passed, "guest": passed / 8}
        return Times(fields)


class Times(tuple):
    """Like psutil's: a tuple with names; guests are in `user` already."""

    def __new__(cls, fields: dict[str, float]) -> "Times":
        one = super().__new__(cls, fields.values())
        one.__dict__.update(fields)
        return one


class Curve(EnergyCurve):
    total_uj = 0


KINDS = {"package:0": Kind.CPU, "dram:0": Kind.DRAM, "gpu:a": Kind.GPU}


def curve(name: str, kind: Kind) -> EnergyCurve:
    return Curve(
        Domain(
            name=name,
            kind=kind,
            scope="s",
            source="t:x",
            measure=Measure.COUNTER,
            refresh_ns=1_000_000,
        )
    )


def test_it_is_charged_its_part_of_what_was_used_above_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """60 W above idle for 10 s, a tenth of the busy time: 60 J; a GPU and unknown idle: nothing."""
    host = Host(monkeypatch)
    host.pass_time(1, busy=3.0, own=0.0, watts=100)
    assert host.cost.joules() == {}
    host.pass_time(10, busy=20.0, own=1.5, watts=100)
    host.cpu_seconds = 0.5
    assert host.cost.joules() == {"package:0": pytest.approx(60.0)}
    assert host.cost.cpu_seconds() == 2.0


def test_a_domain_that_idles_costs_nothing_and_a_counter_never_falls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Below the idle power nothing is taken back."""
    host = Host(monkeypatch)
    host.pass_time(1, busy=3.0, own=0.0, watts=100)
    host.cost.joules()
    host.pass_time(10, busy=20.0, own=2.0, watts=100)
    before = host.cost.joules()
    host.pass_time(10, busy=2.0, own=2.0, watts=30)
    assert host.cost.joules() == before


def test_asked_again_at_once_it_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than a second of busy time tells nothing; it is kept for the next answer."""
    host = Host(monkeypatch)
    host.pass_time(1, busy=3.0, own=0.0, watts=100)
    host.cost.joules()
    host.pass_time(1, busy=0.6, own=0.3, watts=100)
    assert host.cost.joules() == {}
    host.pass_time(1, busy=0.6, own=0.3, watts=100)
    assert host.cost.joules() == {"package:0": pytest.approx(60.0)}
