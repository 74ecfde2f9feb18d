"""What a run found as Markdown tables (pure)."""

from typing import Any

from benchmarks.gpu.probe import page as probe_page
from benchmarks.page import table

Found = dict[str, Any]
PHASES = (
    "model",
    "at once",
    "requests",
    "output tokens/s",
    "J/output token",
    "prefill / decode, J",
    "MELODI",
    "windows per request",
    "padded, power x time",
    "quality",
)


def page(found: Found) -> str:
    """Everything there is so far."""
    parts = []
    if found.get("probe"):
        parts += [probe_page.page(found["probe"]).strip()]
    parts += [phases_table(found), *lines(found)]
    return "\n\n".join(parts) + "\n"


def phases_table(found: Found) -> str:
    """One row for each model and concurrency; the three ways over the second reader's joules."""
    rows = []
    for size, model in found.get("models", {}).items():
        for phase in model["phases"]:
            records, reader = phase["records"], phase.get("reader_joules")
            split = (records["prefill_joules"], records["decode_joules"])
            ways = (records["energy_joules"], *(phase.get(name) for name in WAYS))
            rows.append(
                [
                    size,
                    str(phase["concurrency"]),
                    str(phase["requests"]),
                    number(phase.get("tokens_per_second")),
                    number(records["joules_per_output_token"]),
                    " / ".join(map(number, split)),
                    *(number(ratio(way, reader)) for way in ways),
                    ", ".join(f"{word} {count}" for word, count in records["qualities"].items()),
                ]
            )
    words = (
        "`MELODI`, `windows per request` (the whole device from each start to each end) and "
        "`padded, power x time` (mean power shown, half a second longer on both sides: the "
        "original MELODI) are all requests' joules over what the card used from the first start "
        "to the last end, by a second reader of its counter."
    )
    return f"{words}\n\n{table(PHASES, rows)}"


WAYS = ("whole_device_joules", "padded_joules")


def ratio(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


def number(value: float | None) -> str:
    """Three digits; a dash where it is not known."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def lines(found: Found) -> list[str]:
    """Idle, tail, checks and what was not done."""
    said = []
    for size, model in found.get("models", {}).items():
        batching = "in batches" if model.get("continuous_batching") else "one after the other"
        parameters = f"{model['parameters']:,} parameters"
        idle = model.get("idle") or {}
        said.append(
            f"{size}: {parameters} with random weights, served {batching}; "
            f"{number(idle.get('counter_watts'))} W when nothing was asked."
        )
    if "ledger" in found:
        said.append(accounts(found["ledger"]["total"]))
    for one in found.get("checks", []):
        said.append(
            f"{'Held' if one['ok'] else '**Not held**'}: {one['claim']} ({one['figures']})."
        )
    for stage, reason in found.get("not_done", {}).items():
        said.append(f"Not done: {stage} ({reason.splitlines()[0]}).")
    return said


def accounts(total: Found) -> str:
    names = ("active", "idle_share", "load", "idle", "foreign", "unattributed")
    told = ", ".join(f"{name.replace('_', ' ')} {total[f'{name}_joules']:.1f} J" for name in names)
    return f"Ledger: {told}, of it {total['tail_joules']:.1f} J within 5 s after a last request."
