"""Error of attributed energy against the simulator's truth, as the tables of docs/measuring.md.

python -m benchmarks.accuracy_attribution [--write]
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.accuracy_attribution.drive import Outcome, drive
from benchmarks.accuracy_attribution.methods import METHODS, errors
from benchmarks.accuracy_attribution.scenario import Scenario
from benchmarks.page import pair, table, write_between_marks
from melodi.clock import NS_PER_SECOND
from melodi.energy.policies import policies_for
from melodi.simulator.laws import PowerLaw

PAGE = Path(__file__).resolve().parents[2] / "docs" / "measuring.md"
SEEDS = (1, 2, 3)
CLIENTS = (1, 4, 16, 64)
HELD_UP: dict[str, dict[str, object]] = {
    "streamed": {},
    "whole": {"streamed": 0.0},
    "whole, Ollama's durations": {"streamed": 0.0, "phases_told_by": "ollama"},
    "whole, vLLM's durations": {"streamed": 0.0, "phases_told_by": "vllm"},
}
PROMISES = ("bounds hold / width", "exclusive hold", "residual")
INTRODUCTION = """
Written by `python -m benchmarks.accuracy_attribution --write`; seeds {seeds}; sensors polled at
20 Hz with unknown phase; closed loop; final records of requests of 1 s and longer.

**Models, not hardware.** Truth is the simulator's, by the Shapley convention; only sums are
physics. Law 1 (additive): a step takes 8 ms + 30 us per decoding request + 20 ns per context
token + 22 us per prefill token, and 110 W x its time + 2.6 J + 12 mJ + 6 uJ x context per decoding
request + 11.5 mJ per prefill token; the 2.6 J are shared equally, the rest is each one's own.
Law 2 (concave): 2.6 J, shared equally, + 3.2 x (own work of all)^0.75, shared by own work, 3 %
noise, stretched above 490 W of dynamic power. Engines side by side run as if alone and their
energies add up; the shares of a domain that others work on too are true over each whole second.
"Steps read": the engine's counters were read once a second, with unknown phase.
"""

PROCESSORS = """
A processor, read at 10 Hz, on which others draw 0 to 300 W beside the engine; the shares of its
work are told once a second:
"""


@dataclass(frozen=True)
class Figures:
    """Errors of active energy in %, how often the bounds hold, and how wide they are in %."""

    errors: list[float]
    held: list[bool]
    widths: list[float]
    exclusive: list[bool]
    residual: float

    @property
    def pair(self) -> str:
        return pair(self.errors)


def long_ones(outcome: Outcome) -> list[int]:
    return [
        key
        for key, seen in outcome.seen.items()
        if seen.end_ns is not None and seen.end_ns - seen.sent_ns >= NS_PER_SECOND
    ]


def figures(scenario: Scenario, policy: str) -> Figures:
    """The scenario over all seeds."""
    found = Figures([], [], [], [], 0.0)
    residual = 0.0
    for seed in SEEDS:
        outcome = drive(replace(scenario, seed=seed), partial(policies_for, policy))
        residual = max(residual, abs(outcome.residual_joules) / outcome.measured_joules)
        for key in long_ones(outcome):
            energy, truth = outcome.energies[key], outcome.truths[key]
            active = truth.true_active_joules
            if energy.active_joules is None or energy.high_joules is None:
                continue
            total = active + truth.true_idle_share_joules
            found.errors.append(abs(energy.active_joules / active - 1) * 100)
            found.held.append(energy.low_joules <= total <= energy.high_joules)
            width = (energy.high_joules - energy.low_joules) / energy.energy_joules
            found.widths.append(width * 100)
            low, high = energy.exclusive_low_joules, energy.exclusive_high_joules
            found.exclusive.append(low - 1e-6 <= active <= high + 1e-6)
    return replace(found, residual=residual)


def scenario(law: PowerLaw, clients: int, **more: object) -> Scenario:
    requests = max(120, clients * 12)
    base = Scenario(law=law, clients=clients, refresh_ms=100, requests=requests)
    return replace(base, **more)  # type: ignore[arg-type]


def policies_table() -> str:
    rows = []
    for number, law in enumerate(PowerLaw, start=1):
        for clients in CLIENTS:
            for words, streamed in (("all", 1.0), ("half", 0.5), ("none", 0.0)):
                one = scenario(law, clients, streamed=streamed)
                others = [figures(one, policy).pair for policy in ("tokens", "time")]
                for told in (False, True) if streamed < 1 else (False,):
                    auto = figures(replace(one, steps_told=told), "auto")
                    label = f"{words}, steps read" if told else words
                    rows.append(
                        [f"{number}", str(clients), label, auto.pair, *others, *promises(auto)]
                    )
                    print(rows[-1], file=sys.stderr, flush=True)
    headings = ["law", "at once", "streamed", "auto", "tokens", "time"]
    return table([*headings, *PROMISES], rows)


def cases(law: PowerLaw) -> dict[str, Scenario]:
    """What one table of clients and shares of streams does not show."""
    return {
        "refresh 20 ms, 16 at once": scenario(law, 16, refresh_ms=20),
        "prefix cache, 16 at once": scenario(law, 16, prefix_cache=True),
        "one slot, four clients, queue told": scenario(law, 4, slots=1, queue_told=True),
        **{
            f"16 slots, 32 clients, {words} streamed{read}": scenario(
                law, 32, slots=16, streamed=streamed, steps_told=bool(read)
            )
            for words, streamed in (("all", 1.0), ("half", 0.5), ("none", 0.0))
            for read in ("", ", steps read")
        },
        "another model is loaded in the middle, 4": scenario(law, 4, reload=True, queue_told=True),
        **{
            f"alone, held up for up to 0.3 s, {words}": scenario(law, 1, held_up_ms=300, **more)
            for words, more in HELD_UP.items()
        },
        "two models side by side, 8 each": scenario(law, 16, models=2),
        "two models side by side, 15 and 1": scenario(law, 16, models=2, uneven=True),
    }


def cpu_cases(law: PowerLaw) -> dict[str, Scenario]:
    """A processor: renewed all the time, read ten times a second, and others work on it too."""
    cpu = {"foreign_watts": 300.0, "poll_ms": 100, "refresh_ms": 1}
    return {f"{clients} at once": scenario(law, clients, **cpu) for clients in CLIENTS[:3]}


def cases_table(of: Callable[[PowerLaw], dict[str, Scenario]]) -> str:
    rows = []
    for number, law in enumerate(PowerLaw, start=1):
        for name, one in of(law).items():
            auto, by_time = figures(one, "auto"), figures(one, "time")
            rows.append([f"{number}", name, auto.pair, by_time.pair, *promises(auto)])
            print(rows[-1], file=sys.stderr, flush=True)
    return table(["law", "case", "auto", "time", *PROMISES], rows)


def promises(one: Figures) -> tuple[str, str, str]:
    """How often the bounds hold and how wide they are, the exclusive ones, the residual."""
    held = sum(one.held) / len(one.held)
    exclusive = sum(one.exclusive) / len(one.exclusive)
    return f"{held:.0%} / {median(one.widths):.0f} %", f"{exclusive:.1%}", f"{one.residual:.0e}"


def methods_table() -> str:
    rows = []
    for clients in CLIENTS:
        one = scenario(PowerLaw.ADDITIVE, clients)
        outcome = drive(one, partial(policies_for, "auto"))
        keys = long_ones(outcome)
        found = errors(outcome, keys)
        ours = errors_of(outcome, keys)
        by_time = errors_of(drive(one, partial(policies_for, "time")), keys)
        others = [pair(found[name]) for name in METHODS]
        rows.append([str(clients), pair(ours), pair(by_time), *others])
    return table(["at once", "MELODI", "equal shares of time", *METHODS], rows)


def errors_of(outcome: Outcome, keys: Sequence[int]) -> list[float]:
    """Errors of the records' energy, idle share included, in %."""
    found = []
    for key in keys:
        truth, energy = outcome.truths[key], outcome.energies[key].energy_joules
        assert energy is not None
        true = truth.true_active_joules + truth.true_idle_share_joules
        found.append(abs(energy / true - 1) * 100)
    return found


def main() -> None:
    began = time.monotonic()
    text = "\n\n".join(
        [
            INTRODUCTION.format(seeds=", ".join(map(str, SEEDS))).strip(),
            "Error of one request's active energy, median / 90th percentile in %:",
            policies_table(),
            "Cases of their own:",
            cases_table(cases),
            PROCESSORS.strip(),
            cases_table(cpu_cases),
            "Law 1, all streamed, by other rules; error of energy with its idle share:",
            methods_table(),
        ]
    )
    print(text)
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)
    if "--write" in sys.argv[1:]:
        write_between_marks(PAGE, "attribution", text)


if __name__ == "__main__":
    main()
