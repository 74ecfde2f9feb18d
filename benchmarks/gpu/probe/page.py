"""The findings of a probe as one table and a few lines."""

from typing import Any

Found = dict[str, Any]
HEADINGS = ("sensor", "call p50 / p99, us", "renewed every, ms", "mean of the last, ms", "follows")
ARCHITECTURES = {5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada", 9: "Hopper", 10: "Blackwell"}


def page(found: Found) -> str:
    """Markdown; what was not found is said as such."""
    return "\n\n".join([heading(found), *doubts(found), sensors_table(found), *lines(found)]) + "\n"


def heading(found: Found) -> str:
    card = found.get("card", {})

    def told(name: str) -> str:
        return str(card.get(name, {}).get("value", "unknown"))

    number = card.get("architecture", {}).get("value")
    architecture = ARCHITECTURES.get(number, f"architecture {number or 'unknown'}")
    limit = card.get("power_limit_mw", {}).get("value")
    watts = "unknown" if limit is None else f"{limit / 1_000:g} W"
    return (
        f"{told('card')} ({architecture}), driver {told('driver')}, limit {watts}; "
        f"probed {found.get('probed_at', 'at an unknown time')}."
    )


def doubts(found: Found) -> list[str]:
    """That kernels may have run on another card than was watched, where that is so."""
    doubt = found.get("watched", {}).get("doubt")
    words = "**Kernels may have run on another card than was watched**"
    return [f"{words}: {doubt}."] if doubt else []


def sensors_table(found: Found) -> str:
    """One row for each sensor; one that does not answer says why."""
    columns = (*HEADINGS, "its joules / the counter's, steady; waves")
    rows = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, one in found["sensors"].items():
        if "value" not in one["answer"]:
            cells = [name, one["answer"]["error"], "", "", "", ""]
        else:
            cells = [name, *cells_of(one), compared(found, name)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def cells_of(one: Found) -> list[str]:
    call, refresh, window = one.get("call_us"), one.get("refresh"), one.get("window")
    renewed = averaged = follows = "not known"
    if refresh:
        bound = "at most " if refresh["bound"] else ""
        renewed = f"{bound}{refresh['period_ms']:.1f} ({refresh['low_ms']:.1f}.."
        renewed += f"{refresh['high_ms']:.1f})"
    if window:
        averaged = f"{window['width_ms']} ({window['low_ms']}..{window['high_ms']}), "
        averaged += f"{window['delay_ms']} late"
        follows = f"{window['explained']:.0%}"
    latency = f"{call['p50']:.0f} / {call['p99']:.0f}" if call else "not known"
    return [latency, renewed, averaged, follows]


def compared(found: Found, name: str) -> str:
    ratios = found.get("against_counter", {})
    if name.startswith("energy") or not ratios:
        return ""
    steady = ratios.get("steady", {}).get(name)
    waves = [one[name] for wave, one in ratios.items() if wave != "steady" and name in one]
    text = "not known" if steady is None else f"{steady:.3f}"
    return f"{text}; {min(waves):.3f}..{max(waves):.3f}" if waves else text


def lines(found: Found) -> list[str]:
    """Idle, tail, cost, and what went wrong."""
    said = []
    for key, words in (
        ("cold_idle_mw", "Idle without a context"),
        ("warm_idle_mw", "Idle with one"),
    ):
        told = found.get(key, {})
        watts = [f"{name} {one / 1_000:.1f} W" for name, one in told.items() if one is not None]
        said.append(f"{words}: {', '.join(watts) or 'not known'}.")
    for name, tail in found.get("tail", {}).items():
        seconds = tail["seconds"]
        until = "did not end" if seconds is None else f"{seconds:.1f} s"
        joules = tail["joules_above_idle"]
        spent = "not known" if joules is None else f"{joules:.0f} J above idle"
        said.append(f"Tail after work by {name}: {until}, {spent}.")
    cost = found.get("cost", {})
    if "lowest" in cost:
        said.append(
            f"Kernels with polling at 20 Hz over those without: "
            f"{cost['kernels_with_over_without']:.4f} "
            f"({cost['lowest']:.4f}..{cost['highest']:.4f})."
        )
    if "left_out" in cost:
        said.append(f"Cost of polling: left out, {cost['left_out']}.")
    for stage, reason in found.get("not_done", {}).items():
        said.append(f"Not done: {stage} ({reason}).")
    for failed, count in found.get("failed_reads", {}).items():
        said.append(f"Failed reads: {count} x {failed}.")
    return said
