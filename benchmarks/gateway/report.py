"""Says in tables what was measured, and which targets are met."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gateway.candidates import BARE, DIRECT, LITELLM, MELODI, UNRECORDED
from benchmarks.gateway.measure import Figures, Load
from benchmarks.page import table

Found = Mapping[Load, Mapping[str, Figures]]


@dataclass(frozen=True)
class Target:
    """One promise: a figure and the most, or the least, that it may be."""

    name: str
    value: float
    bound: float
    at_least: bool = False
    unit: str = "x"

    @property
    def is_met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def row(self) -> list[str]:
        sign = ">=" if self.at_least else "<="
        off = abs(self.value - self.bound)
        by = f"{off / self.bound:.0%}" if self.bound else f"{off:.3g}"
        verdict = "met" if self.is_met else f"**missed** by {by}"
        return [self.name, f"{self.value:.3g} {self.unit}", f"{sign} {self.bound:g}", verdict]


def tables(found: Found) -> str:
    """Plain answers, then streams."""
    parts = ["Plain answers, added to the same request without a gateway:", _plain(found)]
    parts += ["Streams of 64 chunks, one every 20 ms:", _streams(found)]
    return "\n\n".join(parts)


def targets(found: Found) -> list[Target]:
    """The promises that these figures can tell of."""
    one, sixteen, many = (found[Load(n, False)] for n in (1, 16, 128))
    streams = found[Load(128, True)]
    base = one[DIRECT].p50
    melodi = _added(one, MELODI)
    rows = [
        Target("added p50 at 1, to bare aiohttp", melodi / _added(one, BARE), 2),
        Target("CPU a request at 1, to bare aiohttp", _cpu(one, MELODI, BARE), 2),
        Target("CPU a request at 16, to bare aiohttp", _cpu(sixteen, MELODI, BARE), 2),
        Target("CPU a request at 128, to bare aiohttp", _cpu(many, MELODI, BARE), 2),
        Target("CPU a paced stream, to bare aiohttp", _cpu(streams, MELODI, BARE), 2),
    ]
    for name, cell in (("1", one), ("16", sixteen)):
        extra = cell[MELODI].cpu_ms - cell[UNRECORDED].cpu_ms
        rows.append(Target(f"recording, CPU a request at {name}", extra, 0.2, unit="ms"))
    if LITELLM in one:
        at_one, at_sixteen = (cell[MELODI].rate / cell[LITELLM].rate for cell in (one, sixteen))
        rows += [
            Target("requests/s at 1, to LiteLLM", at_one, 20, at_least=True),
            Target("requests/s at 16, to LiteLLM", at_sixteen, 40, at_least=True),
            Target("added p50 at 1, to LiteLLM", melodi / (one[LITELLM].p50 - base), 1 / 20),
            Target("CPU a paced stream, to LiteLLM", _cpu(streams, MELODI, LITELLM), 1 / 10),
        ]
    return rows


def target_table(rows: Sequence[Target]) -> str:
    return table(["target", "measured", "wanted", ""], [one.row for one in rows])


def _plain(found: Found) -> str:
    rows = []
    for load, figures in found.items():
        if load.streamed:
            continue
        direct = figures[DIRECT]
        for name, one in figures.items():
            is_direct = name == DIRECT
            p50, p99 = (one.p50, one.p99) if is_direct else _less(one, direct)
            times = [f"({p50:.2f})", f"({p99:.2f})"] if is_direct else [f"{p50:.2f}", f"{p99:.2f}"]
            cpu = f"{one.cpu_ms:.3f}" if one.has_cpu else ""
            failed = str(one.failed)
            rows.append([str(load.connections), name, f"{one.rate:,.0f}", *times, cpu, failed])
    heads = ["at once", "", "requests/s", "added p50 ms", "added p99 ms", "CPU ms each", "failed"]
    return table(heads, rows)


def _streams(found: Found) -> str:
    rows = []
    for load, figures in found.items():
        if not load.streamed:
            continue
        direct = figures[DIRECT]
        for name, one in figures.items():
            words = [f"{one.cpu_ms:.2f}" if one.has_cpu else ""]
            for what in ("first", "chunk_p50", "chunk_p99"):
                here, there = getattr(one, what), getattr(direct, what)
                words.append(f"({here:.2f})" if name == DIRECT else f"{here - there:.2f}")
            lost = f"{one.failed} / {one.disordered}"
            rows.append([str(load.connections), name, *words[1:], words[0], lost])
    heads = ["at once", "", "added to first chunk ms", "added a chunk p50 ms", "p99 ms"]
    return table([*heads, "CPU ms a stream", "failed / out of order"], rows)


def _less(one: Figures, direct: Figures) -> tuple[float, float]:
    return one.p50 - direct.p50, one.p99 - direct.p99


def _added(cell: Mapping[str, Figures], name: str) -> float:
    return cell[name].p50 - cell[DIRECT].p50


def _cpu(cell: Mapping[str, Figures], name: str, other: str) -> float:
    return cell[name].cpu_ms / cell[other].cpu_ms
