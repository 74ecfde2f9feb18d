"""What a run must show for MELODI's numbers to be believed: each a claim, held or not (pure)."""

from typing import Any

Found = dict[str, Any]
COST_AIM = 0.99
CLOSED = 1e-6
"""Largest part of the measured joules on which books and records may differ: rounding."""


def checks(found: Found) -> list[Found]:
    """Claim, whether it holds, and by which figures; what cannot be told does not hold."""
    phases = [phase for model in found["models"].values() for phase in model["phases"]]
    made = [one_record_each(phases), no_joule_lost(found), windows_agree(found, phases)]
    return [*made, minutes_agree(found), split_apart(phases), little_cost(found)]


def claim(words: str, held: bool, figures: str) -> Found:
    return {"claim": words, "ok": held, "figures": figures}


def one_record_each(phases: list[Found]) -> Found:
    sent = sum(phase["requests"] for phase in phases)
    records = sum(phase["records"]["ids"] for phase in phases)
    bad = sum(phase["records"]["not_ok"] for phase in phases)
    errors = [error for phase in phases for error in phase["errors"]]
    figures = f"{sent} sent, {records} final records, {bad} not ok"
    held = sent > 0 and sent == records and not bad and not errors
    words = "every request has one final record"
    return claim(words, held, "; ".join([figures, *map(str, errors[:3])]))


def no_joule_lost(found: Found) -> Found:
    words = "the accounts add up, and the records are the accounts"
    if "ledger" not in found:
        return claim(words, False, "no ledger")
    total, records = found["ledger"]["total"], found["records"]
    measured = total["measured_joules"]
    residual = abs(total["residual_joules"])
    booked = total["active_joules"] + total["idle_share_joules"]
    kept = records["energy_joules"]
    if kept is None or not measured:
        return claim(words, False, "the energy of records, or the measured joules, are not known")
    apart = abs(booked - kept)
    figures = (
        f"{measured:.1f} J measured, residual {residual:.1e} J; {booked:.3f} J booked to requests, "
        f"{kept:.3f} J in {records['count']} records"
    )
    return claim(words, max(residual, apart) <= CLOSED * measured, figures)


def windows_agree(found: Found, phases: list[Found]) -> Found:
    """Each window within one refresh at full power at each end of what the second reader saw."""
    words = "windows agree with the second reader within one refresh x P_max at each end"
    allowed = found.get("ledger", {}).get("allowed_joules")
    pairs = [(phase.get("window_joules"), phase.get("window_reader_joules")) for phase in phases]
    return agreeing(words, pairs, allowed)


def minutes_agree(found: Found) -> Found:
    """Each whole minute of the books, likewise."""
    words = "whole minutes of the ledger agree with it likewise"
    told = found.get("ledger", {})
    pairs = [(one["measured_joules"], one["reader_joules"]) for one in told.get("minutes", [])]
    return agreeing(words, pairs, told.get("allowed_joules"))


def agreeing(
    words: str, pairs: list[tuple[float | None, float | None]], allowed: float | None
) -> Found:
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if allowed is None or not known or len(known) < len(pairs):
        return claim(words, False, f"{len(known)} of {len(pairs)} known; allowed: {allowed}")
    apart = max(abs(a - b) for a, b in known)
    share = max(abs(a - b) / b for a, b in known if b)
    figures = (
        f"{len(known)} compared, at most {apart:.2f} J ({share:.2%}) apart, {allowed:.1f} J allowed"
    )
    return claim(words, apart <= allowed, figures)


def split_apart(phases: list[Found]) -> Found:
    """Prefill and decode of every record, and they add up to active energy."""
    words = "prefill and decode are apart, and add up to active energy"
    sums = [phase["records"] for phase in phases]
    names = ("active_joules", "prefill_joules", "decode_joules")
    if not sums or any(one[name] is None for one in sums for name in names):
        return claim(words, False, "not known for every record")
    active, prefill, decode = (sum(one[name] for one in sums) for name in names)
    figures = f"{prefill:.1f} J + {decode:.1f} J of {active:.1f} J"
    return claim(words, abs(prefill + decode - active) <= CLOSED * active, figures)


def little_cost(found: Found) -> Found:
    words = "gateway and sampler cost at most 1 % of tokens per second"
    cost = found.get("cost", {})
    if cost.get("median") is None:
        return claim(words, False, "not known")
    figures = (
        f"{1 - cost['median']:+.2%} median ({1 - cost['highest']:+.2%}.."
        f"{1 - cost['lowest']:+.2%}) of {len(cost['pairs'])} pairs"
    )
    return claim(words, cost["median"] >= COST_AIM, figures)
