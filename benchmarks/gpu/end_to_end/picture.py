"""Joules per output token by concurrency, as a PNG, where matplotlib is installed."""

from pathlib import Path
from typing import Any


def draw(found: dict[str, Any], path: Path) -> bool:
    """False where there is nothing to draw, or nothing to draw with."""
    curves = {
        size: [
            (phase["concurrency"], phase["records"]["joules_per_output_token"])
            for phase in model["phases"]
            if phase["records"]["joules_per_output_token"] is not None
        ]
        for size, model in found.get("models", {}).items()
    }
    curves = {size: points for size, points in curves.items() if points}
    if not curves:
        return False
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for size, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=f"Llama {size}")
    at_once = sorted({count for points in curves.values() for count, _ in points})
    axes.set(xlabel="requests at once", ylabel="joules per output token", ylim=(0, None))
    axes.set_xscale("log", base=2)
    axes.set_xticks(at_once, [str(count) for count in at_once])
    axes.legend()
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=150)
    return True
