"""`melodi compare` tells which of two took fewer joules, if that can be told."""

import json

import pytest
from command import Shell
from energy_records import make_record

from melodi.energy.record import Quality
from melodi.store.database import open_engine
from melodi.store.migrate import upgrade
from melodi.store.records import Batch, RecordStore


@pytest.fixture
def stored(shell: Shell) -> Shell:
    """A folder with records of three models, one of them much like another."""
    url = f"sqlite:///{shell.folder}/data/melodi/melodi.db"
    (shell.folder / "data" / "melodi").mkdir(parents=True)
    upgrade(url)
    engine = open_engine(url)
    records = tuple(
        make_record(
            n,
            model=model,
            energy_joules=joules + n,
            output_tokens=100,
            footprint="gpu",
            origin="sensor",
            quality=Quality.ESTIMATED if model == "like" else Quality.MEASURED,
        )
        for model, joules in (("small", 10.0), ("big", 40.0), ("like", 10.5))
        for n in range(8)
    )
    doubtful = make_record(50, model="big", energy_joules=9.9, quality=Quality.GAP)
    RecordStore(engine).apply([Batch(host="here", records=(*records, doubtful))])
    engine.dispose()
    return shell


def test_a_clear_difference_is_told(stored: Shell) -> None:
    """Both values, their ratio with an interval, how many records, and how many were left out."""
    ended = stored.melodi("compare", "small", "big", "--by", "model")
    assert ended.code == 0, ended.stderr
    line = next(line for line in ended.stdout.splitlines() if "J per output token" in line)
    assert line.split()[-1] == "small"
    assert "0.135" in line
    assert "big: 8 records, 1 left out" in ended.stderr
    assert "covered: gpu, sensor" in ended.stderr


def test_no_difference_is_claimed_where_none_is_shown(stored: Shell) -> None:
    """The interval holds 1, and estimates are named as such."""
    ended = stored.melodi("compare", "small", "like")
    assert ended.code == 0, ended.stderr
    assert "not shown" in ended.stdout
    assert "estimated, not measured" in ended.stderr
    told = json.loads(stored.melodi("compare", "small", "like", "--json").stdout)
    one = told["joules_per_output_token"]
    assert one["low"] < 1 < one["high"]
    assert one["lower"] is None


def test_what_cannot_be_compared_is_a_failure_with_a_reason(stored: Shell) -> None:
    """A model that nobody asked."""
    ended = stored.melodi("compare", "small", "absent")
    assert ended.code == 1
    assert "no record with model 'absent'" in ended.stderr
