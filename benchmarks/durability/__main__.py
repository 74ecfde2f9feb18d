"""Kills a daemon fifty times under load: what is lost, what is doubled, how soon it is back.

Run with: python -m benchmarks.durability [KILLS]
"""

import asyncio
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from killing import (
    Outcome,
    books_differ_by,
    live_and_die,
    outcomes,
    recover_and_stop,
    settle,
    simulator,
    stored,
)

KILLS = 50
SHORTEST_SECONDS, LONGEST_SECONDS = 1.2, 4.0
COLUMNS = ("sent", "owed", "records", "missing", "twice", "acknowledged", "lost", "interrupted")


async def measure(folder: Path, kills: int) -> list[Outcome]:
    """Live and die so often, then recover once more and look."""
    with simulator() as url:
        shell = settle(folder, url)
        lives = []
        for number in range(kills):
            seconds = random.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
            lives.append(await live_and_die(shell, number, seconds))
            sys.stderr.write(f"\rkill {number + 1} of {kills}")
        sys.stderr.write("\n")
        recover_and_stop(shell)
    return outcomes(folder, lives)


def counts(one: Outcome) -> list[int]:
    """The columns of one life."""
    records = sum(map(len, one.records.values()))
    found = (len(one.life.sent), len(one.life.owed()), records, one.missing, one.twice)
    return [*found, len(one.life.acknowledged), one.lost_acknowledged, one.interrupted]


def main() -> int:
    """Print the table; 1 where a promise was broken."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    with tempfile.TemporaryDirectory(prefix="melodi-kill-") as name:
        folder = Path(name)
        ended = asyncio.run(measure(folder, kills))
        seqs = sorted(record.seq or 0 for record in stored(folder))
        difference = books_differ_by(folder)
    rows = [counts(one) for one in ended]
    print("kill", *COLUMNS, "ready s", sep="\t")
    for one, row in zip(ended, rows, strict=True):
        print(one.life.number + 1, *row, f"{one.life.ready_seconds:.1f}", sep="\t")
    print("all", *(sum(column) for column in zip(*rows, strict=True)), sep="\t")
    gapless = seqs == list(range(1, len(seqs) + 1))
    print(f"numbers without a gap: {gapless}; records and ledger differ by {difference:.1e}")
    good = gapless and difference < 1e-9 and all(one.good for one in ended)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
