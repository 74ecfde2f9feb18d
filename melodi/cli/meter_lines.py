"""What `melodi doctor` says of the meters, in words that a newcomer understands."""

from collections.abc import Iterator, Sequence
from typing import Any

from melodi.cli.output import number

Meter = dict[str, Any]
"""As in the JSON of `melodi doctor`."""

MARKS = {"ok": "ok     ", "absent": "absent ", "denied": "DENIED ", "failing": "FAILING"}
OF = {
    "nvml": "NVIDIA GPUs",
    "rapl": "Intel and AMD processors, memory",
    "hwmon": "other GPUs and processors",
    "pyrapl": "processors and memory, through pyRAPL",
    "simulated": "a simulated GPU",
    "estimate": "a guess at the processors, from their load",
}
KINDS = {"gpu": "GPUs", "cpu": "processors", "dram": "memory"}
INDENT = " " * 13
FASTEST_SECONDS = 0.01
"""A refresh that seems shorter may be shorter still: nobody looked more often."""


def meter_lines(meter: Meter) -> Iterator[str]:
    """One meter: its state, its domains, and what to mend."""
    name = meter["name"]
    yield f"  {MARKS[meter['state']]}  {name}" + (f": {OF[name]}" if name in OF else "")
    for domain in meter["domains"]:
        yield f"{INDENT}{domain_line(domain)}"
    if meter["permission"] == "as_root":
        yield f"{INDENT}read as root: a daemon of another user needs permission of its own"
        yield f"{INDENT}(AmbientCapabilities=CAP_DAC_READ_SEARCH in its systemd unit)"
    if meter["reason"]:
        yield f"{INDENT}{meter['reason']}"
    if meter["remedy"]:
        mends = not meter["remedy"].startswith("nothing to do")
        yield f"{INDENT}{'to mend it: ' if mends else ''}{meter['remedy']}"


def domain_line(domain: dict[str, Any]) -> str:
    """One domain: what it is, what it draws, which sensor says so, how often."""
    what = f" ({domain['description']})" if domain["description"] else ""
    watts = domain["mean_watts"]
    words = [
        "power not seen yet" if watts is None else f"{number(watts)} W",
        f"{domain['measure']} {domain['source']} of scope {domain['scope']}",
        _renewed(domain["refresh_seconds"]),
    ]
    if not domain["moving"]:
        words.append("did not move while watched: idle, asleep or stuck")
    if domain["estimated"]:
        words.append("an estimate, not a measurement")
    elif not domain["summable"]:
        words.append("never added up: it is part of another domain, or may contain others")
    return f"{domain['name']}{what}: {', '.join(word for word in words if word)}"


def summary_lines(meters: Sequence[Meter]) -> Iterator[str]:
    """What requests will be charged with by measurement, and what not."""
    charged = {
        domain["kind"]
        for meter in meters
        for domain in meter["domains"]
        if domain["summable"] and not domain["estimated"]
    }
    if not charged:
        yield from _nothing(meters)
        return
    known = [words for kind, words in KINDS.items() if kind in charged]
    unknown = [words for kind, words in KINDS.items() if kind not in charged]
    yield f"Requests are charged with the energy of: {', '.join(known) or 'the whole machine'}."
    if unknown:
        yield f"Not measured here, and in no record: {', '.join(unknown)}."


def _nothing(meters: Sequence[Meter]) -> Iterator[str]:
    yield "Nothing can be measured on this machine: there is no meter that MELODI may read."
    denied = [meter["name"] for meter in meters if meter["state"] == "denied"]
    if denied:
        yield f"There is one that it may not: {', '.join(denied)}. How to grant it stands above."
    else:
        yield "That is so on most virtual machines without a GPU, and nothing is broken."
    yield "Energy is estimated from processor load then, and every record says `estimated`."
    yield "`melodi demo` shows what MELODI does, with a simulated server and its simulated GPU."


def _renewed(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < FASTEST_SECONDS:
        return "renewed every 10 ms or faster"
    return f"renewed every {seconds * 1_000:.0f} ms"
