"""x"""

import sys, tempfile
from pathlib import Path
from benchmarks.gateway.candidates import candidates, upstream
from benchmarks.gateway.measure import Load, driver, figures

LOADS = [Load(1, False), Load(16, False), Load(128, False), Load(16, True), Load(128, True)]
with (
    tempfile.TemporaryDirectory() as f,
    upstream() as up,
    driver() as d,
    candidates(Path(f), up, with_litellm="--litellm" in sys.argv) as all_,
):
    only = [a for a in sys.argv[1:] if not a.startswith("--")]
    for load in LOADS:
        for c in all_:
            if only and not any(o in c.name for o in only):
                continue
            r = figures(c, load, d, seconds=2)
            print(
                f"{c.name:20} {load.connections:4} {'s' if load.streamed else 'p'} n={r.requests} bad={r.failed}/{r.disordered} {r.rate:8.0f}/s p50 {r.whole_p50:.3f} p99 {r.whole_p99:.3f} first {r.first_p50 or 0:.3f} chunk {r.chunk_p50 or 0:.3f}/{r.chunk_p99 or 0:.3f} cpu {r.cpu_seconds:.2f}s {r.cpu_ms:.3f}ms mem {c.memory_mib:.0f}",
                flush=True,
            )
