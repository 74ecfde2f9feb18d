"""Thread CPU time that the ledger takes for each second of dense traffic, as shares of one core.

python -m benchmarks.ledger [SECONDS]
"""

import sys

from benchmarks.ledger.drive import CPUS, SECOND, Run, Traffic

SECONDS = 20
SECONDS_DENSE = 5
"""Of traffic of thousands of requests a second."""

CASES = {
    "8 GPUs, 100 requests/s, 64 at once": Traffic(domains=8, rate=100, at_once=64),
    "the same, half streamed": Traffic(domains=8, rate=100, at_once=64, streamed=0.5),
    "1 GPU, 100 requests/s, 64 at once": Traffic(domains=1, rate=100, at_once=64),
    "1 GPU, 2 requests/s, 2 at once": Traffic(domains=1, rate=2, at_once=2),
    "1 GPU, 1 request/s, 1 at once": Traffic(domains=1, rate=1, at_once=1),
    "8 GPUs, next to nothing": Traffic(domains=8, rate=0.1, at_once=0.01),
    "2 processors, 4,000 requests/s of 4 ms": Traffic(
        domains=2, rate=4_000, at_once=16, streamed=0.0, meters=CPUS
    ),
}


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    headings = ("traffic", "of one core", "with rows for what is not final")
    print("|", " | ".join((*headings, "us a bin", "us a request", "residual")), "|")
    print("|---|---|---|---|---|---|")
    for name, traffic in CASES.items():
        for_ = min(seconds, SECONDS_DENSE) if traffic.rate > 1_000 else seconds
        spent = Run(traffic).go(for_)
        books = spent.books_ns / (for_ * SECOND)
        whole = (spent.books_ns + spent.posted_ns) / (for_ * SECOND)
        each = spent.books_ns / spent.bins / 1_000
        request = spent.books_ns / max(1, spent.requests) / 1_000
        residual = abs(spent.residual) / spent.measured
        row = (name, f"{books:.2%}", f"{whole:.2%}", f"{each:.0f}", f"{request:.0f}")
        print("|", " | ".join((*row, f"{residual:.0e}")), "|", flush=True)


if __name__ == "__main__":
    main()
