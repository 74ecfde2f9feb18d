"""`melodi recompute` divides stored records anew, and says how far joules moved."""

import json
from typing import Any

import pytest
from command import Shell, is_clear

from melodi.store.database import open_engine
from melodi.store.records import RecordStore

RUN = ("run", "--prompts", "melodi-60", "--limit", "10", "--concurrency", "5")
TO_SIM = ("--backend", "sim", "--model", "simulated", "--max-tokens", "40")
BY_TIME = {"MELODI_ATTRIBUTION__POLICY": "time", "MELODI_HOST": "one"}
HERE = {"MELODI_HOST": "one"}


@pytest.fixture
def ran(configured: Shell) -> Shell:
    """A folder with ten records whose joules were divided by time."""
    ended = configured.melodi(*RUN, *TO_SIM, **BY_TIME)
    assert ended.code == 0, ended.stderr
    return configured


def records(shell: Shell) -> dict[str, dict[str, Any]]:
    listed = shell.melodi("requests", "--json", "--limit", "1000")
    return {one["id"]: one for one in json.loads(listed.stdout)["items"]}


def test_records_of_a_run_are_divided_anew(ran: Shell) -> None:
    """A dry run tells and changes nothing; then each has a new revision and the books close."""
    before = records(ran)
    assert {one["policy"] for one in before.values()} == {"time"}
    words = ("recompute", "--policy", "tokens", "--since", "1h", "--json")
    tried = ran.melodi(*words, "--dry-run", **HERE)
    assert tried.code == 0, tried.stderr
    assert records(ran) == before
    done = ran.melodi(*words, **HERE)
    assert done.code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == json.loads(tried.stdout) | {"dry_run": False}
    assert (told["revised"], told["left"], told["policy"]) == (10, 0, "tokens")
    (item,) = told["items"]
    assert item["before_joules"] == pytest.approx(sum(r["energy_joules"] for r in before.values()))
    assert item["after_joules"] == pytest.approx(item["before_joules"])
    assert item["most_moved_ratio"] > 0
    after = records(ran)
    assert {one["revision"] for one in after.values()} == {2}
    # In a bin without a token, such as one of waiting alone, time decides.
    assert "tokens" in {one["policy"] for one in after.values()} <= {"tokens", "time"}
    assert {one["seq"] for one in after.values()} == set(range(1, 11))
    engine = open_engine(f"sqlite:///{ran.folder}/data/melodi/melodi.db")
    store = RecordStore(engine)
    (line,) = store.ledger()
    audit = store.audit(line.domain, host="one")
    engine.dispose()
    assert abs(line.residual_joules) <= 1e-9 * line.measured_joules
    assert audit.difference_joules <= 1e-9 * line.measured_joules


def test_a_table_says_how_far_joules_moved(ran: Shell) -> None:
    """For people: a line a model, what moved, and what became of the records."""
    ended = ran.melodi("recompute", "--policy", "auto", "--since", "1h", **HERE)
    assert ended.code == 0, ended.stderr
    for word in ("simulated", "10", "J before", "J after", "moved"):
        assert word in ended.stdout
    assert "10 records got a new revision" in ended.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--policy", "fair", "--since", "1h"), 2, "fair"),
        (("--policy", "auto"), 2, "--since"),
        (("--policy", "auto", "--since", "tomorrow"), 1, "no moment"),
        (("--policy", "auto", "--since", "1h", "--backend", "other"), 0, "no record matches"),
    ],
)
def test_what_cannot_be_done_is_said(
    ran: Shell, words: tuple[str, ...], code: int, said: str
) -> None:
    """Wrong words are wrong usage; nothing to do is no failure."""
    ended = ran.melodi("recompute", *words, **HERE)
    assert ended.code == code
    assert said in ended.stderr
    assert is_clear(ended.stderr)


def test_records_that_are_no_longer_kept_are_said(ran: Shell) -> None:
    """Where nothing at all can be divided anew it fails, and says for how long things are kept."""
    engine = open_engine(f"sqlite:///{ran.folder}/data/melodi/melodi.db")
    RecordStore(engine).forget_kept("one", before_minute=10**9)
    engine.dispose()
    ended = ran.melodi("recompute", "--policy", "auto", "--since", "1h", **HERE)
    assert ended.code == 1
    assert "none of 10 records" in ended.stderr
    assert "retention.replay" in ended.stderr
