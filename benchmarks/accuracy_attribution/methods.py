"""What other ways of telling a prompt's energy would have said of the same run."""

from itertools import pairwise

from benchmarks.accuracy_attribution.drive import Outcome, Seen
from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import UJ_PER_JOULE
from melodi.sampling.meters import EnergyCurve

PADDING_NS = NS_PER_SECOND // 2
METHODS = ("whole device", "padded by 0.5 s", "J/output token", "J/token")


def errors(outcome: Outcome, keys: list[int]) -> dict[str, list[float]]:
    """Relative errors (%) of energy with idle share, by method, for the requests `keys`.

    `whole device`: all energy between sending and end, as a window on a busy device gives it.
    `padded by 0.5 s`: the same with half a second on both sides (the original MELODI).
    `J/output token`, `J/token`: the run's energy divided by its tokens, times the request's.
    """
    truths = outcome.truths
    output = sum(one.output_tokens for one in truths.values())
    tokens = output + sum(one.prompt_tokens for one in truths.values())
    used = sum(one.true_active_joules + one.true_idle_share_joules for one in truths.values())
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    for key in keys:
        truth, seen = truths[key], outcome.seen[key]
        true = truth.true_active_joules + truth.true_idle_share_joules
        told = {
            "whole device": _window(outcome.curve, seen, 0),
            "padded by 0.5 s": _window(outcome.curve, seen, PADDING_NS),
            "J/output token": used / output * truth.output_tokens,
            "J/token": used / tokens * (truth.output_tokens + truth.prompt_tokens),
        }
        for name, joules in told.items():
            found[name].append(abs(joules / true - 1) * 100)
    return found


def _window(curve: EnergyCurve, seen: Seen, padding_ns: int) -> float:
    assert seen.end_ns is not None
    start = _total(curve, seen.sent_ns - padding_ns)
    return _total(curve, seen.end_ns + padding_ns) - start


def _total(curve: EnergyCurve, at_ns: int) -> float:
    """The curve's joules at a moment, straight between its edges."""
    edges = list(curve.edges)
    if at_ns <= edges[0].at_ns:
        return 0.0
    for before, after in pairwise(edges):
        if at_ns <= after.at_ns:
            part = (at_ns - before.at_ns) / (after.at_ns - before.at_ns)
            gained = after.total_uj - before.total_uj
            return (before.total_uj + part * gained) / UJ_PER_JOULE
    return edges[-1].total_uj / UJ_PER_JOULE
