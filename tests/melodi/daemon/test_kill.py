"""The daemon killed at random moments under load."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Shell
from killing import (
    books_differ_by,
    live_and_die,
    outcomes,
    recover_and_stop,
    settle,
    simulator,
    stored,
)

KILLS = 2


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A folder for a daemon in front of a simulated backend."""
    with simulator() as url:
        yield settle(tmp_path, url)


async def test_a_kill_loses_no_request_and_doubles_none(shell: Shell) -> None:
    """Acknowledged records stay, each request of a second before has exactly one final record.

    The numbers have no gap, and records and ledger still agree.
    """
    lives = [await live_and_die(shell, number, random.uniform(2.5, 3.5)) for number in range(KILLS)]
    recover_and_stop(shell)
    for one in outcomes(shell.folder, lives):
        assert one.life.owed()
        assert (one.missing, one.twice, one.unfinished, one.lost_acknowledged) == (0, 0, 0, 0)
        assert one.interrupted
    seqs = sorted(record.seq for record in stored(shell.folder))
    assert seqs == list(range(1, len(seqs) + 1))
    assert any(life.acknowledged for life in lives)
    assert books_differ_by(shell.folder) < 1e-9
