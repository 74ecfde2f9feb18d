"""`melodi stats`, `ledger` and `export` tell what `melodi requests` tells."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from command import Shell, is_clear
from energy_records import make_record
from postgres import TEMPLATE, postgres_server
from pyarrow import parquet

from melodi.energy.accounts import MinuteAccounts
from melodi.energy.record import Quality
from melodi.store.database import open_engine
from melodi.store.migrate import upgrade
from melodi.store.records import Batch, RecordStore

TO_SIM = ("--backend", "sim", "--model", "simulated", "--max-tokens", "20")
COUNTED = ("measured", "interpolated", "estimated")


@pytest.fixture
def stored(shell: Shell) -> Shell:
    """A folder with thirty records of two models, and two minutes of books."""
    url = f"sqlite:///{shell.folder}/data/melodi/melodi.db"
    (shell.folder / "data" / "melodi").mkdir(parents=True)
    upgrade(url)
    engine = open_engine(url)
    records = tuple(
        make_record(
            n,
            model=("llama-3.3-70b-instruct", "qwen")[n % 2],
            footprint="gpu+cpu+dram",
            origin="sensor",
            task="qa",
            duration_seconds=2.0,
            output_tokens=100,
            input_tokens=1000,
            time_to_first_token_seconds=0.25,
            time_per_output_token_seconds=0.0175,
            quality=Quality.ESTIMATED if n < 3 else Quality.GAP if n < 5 else Quality.MEASURED,
        )
        for n in range(30)
    )
    minutes = tuple(
        MinuteAccounts(
            domain="gpu:x", minute=29_453_760 + n, measured_joules=100.0, idle_joules=9.0
        )
        for n in range(2)
    )
    RecordStore(engine).apply([Batch(host="here", records=records, minutes=minutes)])
    engine.dispose()
    return shell


@pytest.fixture(scope="module")
def postgres_urls() -> Iterator[Any]:
    """Makes databases on a real Postgres."""
    with postgres_server() as server:
        yield lambda: server.create(template=TEMPLATE)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_statistics_after_a_run_equal_sums_over_its_records(
    configured: Shell, database: str, request: pytest.FixtureRequest
) -> None:
    """Count, sum and tokens of every model, as `melodi requests` lists them."""
    place = {}
    if database == "postgres":
        place = {"MELODI_DATABASE__URL": request.getfixturevalue("postgres_urls")()}
    many = ("--limit", "12", "--concurrency", "6")
    ran = configured.melodi("run", "--prompts", "melodi-60", *many, *TO_SIM, **place)
    assert ran.code == 0, ran.stderr
    listed = configured.melodi("requests", "--json", "--limit", "1000", **place)
    records = json.loads(listed.stdout)["items"]
    assert len(records) == 12
    ended = configured.melodi("stats", "--by", "model", "--json", **place)
    assert ended.code == 0, ended.stderr
    (group,) = json.loads(ended.stdout)["items"]
    assert group["model"] == "simulated"
    assert group["origin"] == "simulator"
    counted = [one for one in records if one["quality"] in COUNTED]
    assert group["count"] == len(counted)
    assert sum(group["left_out"].values()) == 12 - len(counted)
    for name in ("active_joules", "idle_share_joules", "output_tokens", "input_tokens"):
        known = [one[name] for one in counted if one[name] is not None]
        assert group[name]["known"] == len(known)
        assert known == [] or math.isclose(group[name]["sum"], sum(known), rel_tol=1e-9)
    joules = sum(one["energy_joules"] for one in counted)
    assert math.isclose(group["joules_per_request"]["sum"], joules, rel_tol=1e-9)


def test_the_tables_fit_and_say_what_is_estimated(stored: Shell) -> None:
    """No line is longer than 120 signs, no model's name is cut, and estimates are named."""
    ended = stored.melodi("stats", MELODI_CARBON__GRAMS_PER_KWH="400")
    assert ended.code == 0, ended.stderr
    assert max(len(line) for line in ended.stdout.splitlines()) <= 120
    assert "llama-3.3-70b-instruct" in ended.stdout
    assert "gCO2e" in ended.stdout
    assert "cost" not in ended.stdout
    assert "3 of these records are estimated" in ended.stderr
    assert "2 records of doubtful quality are left out" in ended.stderr
    books = stored.melodi("ledger")
    assert max(len(line) for line in books.stdout.splitlines()) <= 120
    assert "182" in books.stdout


def test_verbs_share_the_filters_of_the_api(stored: Shell) -> None:
    """Host, bounds of energy and pages: requests, stats and export choose alike."""
    few = ("--min-energy-joules", "10", "--max-energy-joules", "12", "--host", "here")
    page = json.loads(stored.melodi("requests", *few, "--limit", "2", "--json").stdout)
    assert [one["energy_joules"] for one in page["items"]] == [12.0, 11.0]
    more = stored.melodi("requests", *few, "--cursor", page["next_cursor"], "--json")
    assert [one["energy_joules"] for one in json.loads(more.stdout)["items"]] == [10.0]
    groups = json.loads(stored.melodi("stats", "--by", "task", *few, "--json").stdout)["items"]
    assert [(one["task"], one["count"]) for one in groups] == [("qa", 3)]
    zero = json.loads(stored.melodi("stats", "--max-energy-joules", "0", "--json").stdout)["items"]
    assert [one["count"] for one in zero] == [1]


def test_the_ledger_is_told_as_by_the_api(stored: Shell) -> None:
    """By domain, and by minute from a moment on."""
    (line,) = json.loads(stored.melodi("ledger", "--json").stdout)["items"]
    assert (line["domain"], line["measured_joules"], line["minute"]) == ("gpu:x", 200.0, None)
    assert line["residual_joules"] == 182.0
    since = ("--since", "2026-01-01T00:01:00Z", "--by", "minute", "--json")
    (minute,) = json.loads(stored.melodi("ledger", *since).stdout)["items"]
    assert minute["minute"] == "2026-01-01T00:01:00Z"


@pytest.mark.parametrize("chosen", ["parquet", "jsonl", "csv"])
def test_an_export_is_a_file_in_a_folder_or_by_its_name(stored: Shell, chosen: str) -> None:
    """`records.FORMAT` in a folder that is made, or the file that was named; counted on stderr."""
    ended = stored.melodi("export", "--format", chosen, "--out", "made/here")
    assert ended.code == 0, ended.stderr
    path = stored.folder / "made" / "here" / f"records.{chosen}"
    assert "30 records in" in ended.stderr
    assert ended.stdout == ""
    again = stored.melodi(
        "export", "--format", chosen, "--out", f"mine.{chosen}", "--model", "qwen"
    )
    assert "15 records" in again.stderr
    if chosen == "parquet":
        assert parquet.read_table(path).num_rows == 30
        assert set(parquet.read_table(stored.folder / "mine.parquet")["model"].to_pylist()) == {
            "qwen"
        }
    else:
        assert len(path.read_text().splitlines()) == 30 + (chosen == "csv")


@pytest.mark.parametrize("verb", [("stats",), ("ledger",), ("requests",), ("export", "--out", "x")])
def test_where_nothing_is_recorded_the_verbs_say_how_to(
    shell: Shell, verb: tuple[str, ...]
) -> None:
    """No database yet: exit code 1, a message with what to do, and no file is made."""
    ended = shell.melodi(*verb)
    assert ended.code == 1
    assert "melodi run" in ended.stderr
    assert is_clear(ended.stderr)
    assert not (shell.folder / "x").exists()
    assert not (shell.folder / "data").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stats", "--by", "color"), "host, backend, model"),
        (("stats", "--since", "yesterday"), "no moment"),
        (("ledger", "--until", "x"), "no moment"),
        (("requests", "--cursor", "x"), "cursor"),
        (("export", "--out", "melodi.toml/x.csv"), "choose another --out"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(
    stored: Shell, words: tuple[str, ...], said: str
) -> None:
    """No traceback, and not done."""
    (stored.folder / "melodi.toml").write_text("")
    ended = stored.melodi(*words)
    assert ended.code != 0
    assert said in ended.stderr
    assert is_clear(ended.stderr)
