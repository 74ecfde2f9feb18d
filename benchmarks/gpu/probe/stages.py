"""The stages of a probe, each of which fills its part of what is found."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .load import Machine
from .sensors import Ask, answer_of, other_questions, sensors
from .waves import (
    MS,
    SECOND,
    OnTimes,
    Poll,
    changes,
    counted_power,
    integral_mj,
    mean_power_mw,
    refresh_of,
    shown_power,
    spread_us,
    tail_of,
    window_of,
)

Found = dict[str, Any]
Polled = dict[str, list[Poll]]

WAVES_MS = (20, 60, 100, 140)
POLL_SECONDS = 0.001
ATTEMPTS = 5
"""A sensor that works may answer NotSupported for once."""
ROUND_NS = 4 * MS
"""Sensors are polled together as long as one round of them takes no longer."""
MOST_GROUPS = 3
WAVE_SECONDS, BEFORE_SECONDS, AFTER_SECONDS = 4.0, 1.2, 1.6
IDLE_SECONDS, SETTLE_SECONDS = 5.0, 4.0
STEADY_SECONDS, TAIL_SECONDS = 8.0, 12.0
COST_ROUNDS, COST_SECONDS, COST_PERIOD_SECONDS = 5, 2.0, 0.05


def is_counter(name: str) -> bool:
    return name.startswith("energy")


class Probe:
    """One GPU, and what has been found of it so far."""

    def __init__(self, nvml: Any, handle: Any, machine: Machine) -> None:
        self.nvml = nvml
        self.handle = handle
        self.machine = machine
        self.found: Found = {"sensors": {}, "failed_reads": {}}
        self._asks: dict[str, Ask] = {}
        self._groups: list[list[str]] = []
        self._failed: Counter[str] = Counter()

    @property
    def stages(self) -> dict[str, tuple[Callable[[], None], float]]:
        """What to do, in order, and about how many seconds each takes."""
        wave = WAVE_SECONDS + BEFORE_SECONDS + AFTER_SECONDS
        groups = len(self._groups) or 1
        return {
            "inventory": (self.inventory, 3),
            "latency": (self.latency, 10),
            "cold_idle": (self.cold_idle, IDLE_SECONDS),
            "warm_idle": (self.warm_idle, IDLE_SECONDS + SETTLE_SECONDS + 20),
            "waves": (self.waves, groups * len(WAVES_MS) * wave),
            "steady_and_tail": (self.steady_and_tail, STEADY_SECONDS + TAIL_SECONDS),
            "cost": (self.cost, 2 * COST_ROUNDS * COST_SECONDS),
        }

    def inventory(self) -> None:
        """Which questions the card answers, and with what."""
        questions = other_questions(self.nvml, self.handle)
        self.found["card"] = {name: answer_of(ask) for name, ask in questions.items()}
        for name, ask in sensors(self.nvml, self.handle).items():
            answer = answer_of(ask)
            for _ in range(ATTEMPTS - 1):
                if "value" in answer:
                    break
                self.machine.sleep(0.01)
                answer = answer_of(ask)
            self.found["sensors"][name] = {"answer": answer}
            if "value" in answer:
                self._asks[name] = ask

    def latency(self) -> None:
        """How long each call takes on its own, and from that which can be polled together."""
        for name, ask in self._asks.items():
            times_ns: list[int] = []
            end_ns = time.monotonic_ns() + SECOND
            while len(times_ns) < 1_000 and time.monotonic_ns() < end_ns:
                began_ns = time.monotonic_ns()
                answered = "value" in answer_of(ask)
                if answered:
                    times_ns.append(time.monotonic_ns() - began_ns)
            self.found["sensors"][name]["call_us"] = spread_us(times_ns)
        self._groups = self._together()

    def _together(self) -> list[list[str]]:
        """The sensors, packed so that each round is short, but in no more than a few groups."""
        costs_ns = {
            name: 1_000 * (self.found["sensors"][name]["call_us"] or {"p50": 0})["p50"]
            for name in self._asks
        }
        room_ns = max(ROUND_NS, sum(costs_ns.values()) / MOST_GROUPS)
        groups: list[list[str]] = []
        used_ns = room_ns
        for name, cost_ns in costs_ns.items():
            if used_ns + cost_ns > room_ns:
                groups.append([])
                used_ns = 0
            groups[-1].append(name)
            used_ns += cost_ns
        return groups

    def cold_idle(self) -> None:
        """Power before any CUDA context of ours exists."""
        self.found["cold_idle_mw"] = self._means(self._poll(list(self._asks), IDLE_SECONDS))

    def warm_idle(self) -> None:
        """Power with a context, some seconds after its first kernels."""
        self.machine.open_load()
        self.machine.sleep(SETTLE_SECONDS)
        self.found["warm_idle_mw"] = self._means(self._poll(list(self._asks), IDLE_SECONDS))

    def _means(self, polled: Polled) -> dict[str, float | None]:
        return {
            name: mean_power_mw(polls, is_counter=is_counter(name))
            for name, polls in polled.items()
        }

    def waves(self) -> None:
        """Refresh and window of each sensor under square waves."""
        for group in self._groups:
            spans: list[tuple[int, int]] = []
            stretches: dict[str, list[list[Poll]]] = defaultdict(list)
            for wave_ms in WAVES_MS:
                polled, ran = self._under_wave(group, wave_ms)
                spans += ran
                for name, polls in polled.items():
                    stretches[name].append(polls)
                if "energy" in polled:
                    ratios = against_counter(polled)
                    self.found.setdefault("against_counter", {})[f"{wave_ms} ms"] = ratios
            for name, found in stretches.items():
                self.found["sensors"][name] |= described(name, found, OnTimes(spans))

    def _under_wave(
        self, group: Sequence[str], wave_ms: int
    ) -> tuple[Polled, list[tuple[int, int]]]:
        """Idle, the wave, idle again, in one recording."""
        before = self._poll(group, BEFORE_SECONDS)
        self.machine.start(WAVE_SECONDS, wave_ms / 2)
        after = self._poll(group, WAVE_SECONDS + AFTER_SECONDS)
        return joined(before, after), self.machine.finish().spans

    def steady_and_tail(self) -> None:
        """Whether counter and power agree under a steady load, and how power falls after it."""
        wanted = ("energy", "instant:gpu", "average:gpu", "usage")
        names = [one for one in wanted if one in self._asks]
        before = self._poll(names, BEFORE_SECONDS)
        self.machine.start(STEADY_SECONDS, None)
        after = self._poll(names, STEADY_SECONDS + TAIL_SECONDS)
        ((start_ns, end_ns),) = self.machine.finish().spans
        polled = joined(before, after)
        steady = {
            name: [one for one in polls if start_ns + 2 * SECOND <= one.at_ns <= end_ns]
            for name, polls in polled.items()
        }
        self.found["steady_mw"] = self._means(steady)
        if "energy" in polled:
            ratios = against_counter(steady)
            self.found.setdefault("against_counter", {})["steady"] = ratios
        idle = self.found.get("warm_idle_mw", {})
        self.found["tail"] = {
            name: tail_of(polls, end_ns, idle[name])
            for name, polls in polled.items()
            if not is_counter(name) and idle.get(name) is not None
        }

    def cost(self) -> None:
        """How many kernels fewer run while the card is polled as MELODI polls it."""
        polled = [one for one in ("energy", "instant:gpu") if one in self._asks]
        pairs: list[tuple[int, int]] = []
        for _ in range(COST_ROUNDS):
            alone = self._kernels_beside([])
            polling = self._kernels_beside(polled)
            if not alone or polling is None:
                self.found["cost"] = {"left_out": "no kernels run on this machine"}
                return
            pairs.append((alone, polling))
        ratios = sorted(polling / alone for alone, polling in pairs)
        self.found["cost"] = {
            "kernels_with_over_without": ratios[len(ratios) // 2],
            "lowest": ratios[0],
            "highest": ratios[-1],
            "kernels_per_second": sum(pair[0] for pair in pairs) / COST_ROUNDS / COST_SECONDS,
        }

    def _kernels_beside(self, names: Sequence[str]) -> int | None:
        """How many ran while these sensors were polled."""
        self.machine.start(COST_SECONDS, None)
        self._poll(names, COST_SECONDS, pause_seconds=COST_PERIOD_SECONDS)
        return self.machine.finish().kernels

    def _poll(
        self, names: Sequence[str], seconds: float, *, pause_seconds: float = POLL_SECONDS
    ) -> Polled:
        """Ask all in turn, again and again; a read that fails is counted and left out."""
        machine = self.machine
        polled: Polled = {name: [] for name in names}
        end_ns = machine.now_ns() + round(seconds * SECOND)
        while machine.now_ns() < end_ns:
            for name in names:
                before_ns = machine.now_ns()
                answer = answer_of(self._asks[name])
                took_ns = machine.now_ns() - before_ns
                if "value" in answer:
                    polled[name].append(Poll(before_ns + took_ns // 2, took_ns, answer["value"]))
                else:
                    self._failed[f"{name}: {answer['error']}"] += 1
            machine.sleep(pause_seconds)
        self.found["failed_reads"] = dict(self._failed)
        return polled


def joined(first: Mapping[str, list[Poll]], second: Mapping[str, list[Poll]]) -> Polled:
    return {name: polls + second[name] for name, polls in first.items()}


def described(name: str, stretches: Sequence[Sequence[Poll]], on: OnTimes) -> Found:
    """What stretches under waves tell of one sensor; None: it could not be told."""
    power = counted_power if is_counter(name) else shown_power
    refresh = refresh_of(stretches)
    window = window_of([point for polls in stretches for point in power(polls)], on)
    reads = [one.took_ns for polls in stretches for one in polls]
    return {
        "refresh": None if refresh is None else asdict(refresh) | {"bound": refresh.is_bound},
        "window": None if window is None else asdict(window),
        "call_under_load_us": spread_us(reads),
    }


def against_counter(polled: Mapping[str, Sequence[Poll]]) -> dict[str, float]:
    """Each gauge's energy over the counter's, between the counter's first and last change."""
    moved = changes(polled["energy"])
    if len(moved) < 2:
        return {}
    (start_ns, first_mj), (end_ns, last_mj) = ((moved[k].at_ns, moved[k].value) for k in (0, -1))
    counted_mj = last_mj - first_mj
    return {
        name: integral_mj(polls, start_ns, end_ns) / counted_mj
        for name, polls in polled.items()
        if not is_counter(name) and len(polls) > 1
    }
