"""The other verbs do what their help says."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest
from command import Shell, is_clear, urls_said
from waiting import PATIENCE_SECONDS, wait_for

HEAVY = {
    *("adbc_driver_manager", "aiohttp", "alembic", "fastapi", "httpx", "httpx2", "numpy"),
    *("ollama", "openai", "pandas", "psycopg", "pyarrow", "pynvml", "sqlalchemy"),
}
"""Pydantic is not among them: Typer itself reads a verb's options with it."""
HELP_OF_ALL = """
import contextlib, io, json, sys
import typer
from melodi.cli.main import app

loaded = {}

def visit(words, verb):
    with contextlib.redirect_stdout(io.StringIO()):
        app([*words, "--help"], standalone_mode=False)
    loaded[" ".join(["melodi", *words])] = sorted(sys.modules)
    for name, inner in getattr(verb, "commands", {}).items():
        visit([*words, name], inner)

visit([], typer.main.get_command(app))
print(json.dumps(loaded))
"""
"""Asks every verb for its help in one process; prints what was imported by then."""


def test_help_needs_no_heavy_module(shell: Shell) -> None:
    """Every verb answers at once: heavy packages are imported where they are used."""
    ended = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    loaded = json.loads(ended.stdout)
    assert "pydantic" not in loaded["melodi"]
    assert {"melodi", "melodi run", "melodi db upgrade"} <= loaded.keys()
    for verb, modules in loaded.items():
        assert not HEAVY & set(modules), f"{verb} --help loads {HEAVY & set(modules)}"
    assert "joules" in shell.melodi("--help").stdout
    assert shell.melodi("--version").stdout.startswith("melodi ")


def test_the_demo_prints_its_object_with_the_books_closed(shell: Shell) -> None:
    """Measured by the counter = records + idle + other, and the truth lies within the bounds."""
    ended = shell.melodi("demo", "--exit", "--requests", "12", "--json")
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert len(found["requests"]) == 12
    for one in found["requests"]:
        assert one["low_joules"] <= one["true_joules"] <= one["high_joules"]
        assert one["output_tokens"] > 0
    true = sum(one["true_joules"] for one in found["requests"])
    attributed = sum(one["energy_joules"] + one["load_joules"] for one in found["requests"])
    assert attributed == pytest.approx(found["attributed_joules"], rel=1e-9)
    assert attributed == pytest.approx(true, rel=0.05)
    parts = found["attributed_joules"] + found["idle_joules"] + found["other_joules"]
    assert parts == pytest.approx(found["measured_joules"], rel=1e-9)
    assert found["residual_ratio"] <= 1e-9


def test_the_demo_prints_a_table_for_people(shell: Shell) -> None:
    """One row a prompt, then the books; the environment leads it to no database of the user's."""
    mine = shell.folder / "mine.db"
    elsewhere = {"MELODI_DATABASE__URL": f"sqlite:///{mine}", "MELODI_COLLECTORS__USE": '["nvml"]'}
    ended = shell.melodi("demo", "--exit", "--requests", "3", **elsewhere)
    assert ended.code == 0, ended.stderr
    assert not mine.exists()
    for word in ("low..high", "true", "attributed", "idle", "measured"):
        assert word in ended.stdout
    assert is_clear(ended.stderr)


def test_doctor_says_that_nothing_can_be_measured_and_ends_with_1(shell: Shell) -> None:
    """An empty /sys and no driver: an estimate is no measurement."""
    (shell.folder / "sys").mkdir()
    sysfs = {"MELODI_COLLECTORS__SYSFS_ROOT": str(shell.folder / "sys")}
    ended = shell.melodi("doctor", **sysfs)
    assert ended.code == 1
    assert "Nothing can be measured on this machine" in ended.stdout
    found = json.loads(shell.melodi("doctor", "--json", **sysfs).stdout)
    states = {one["name"]: one["state"] for one in found["collectors"]}
    assert states.pop("estimate") == "ok"
    assert {"nvml", "rapl"} <= states.keys()
    assert set(states.values()) == {"absent"}
    assert found["measurable"] is False
    assert all(one["reason"] for one in found["collectors"] if one["state"] != "ok")


def test_doctor_finds_and_times_the_simulator(configured: Shell) -> None:
    """The meter is ok and moving, its refresh near 100 ms; the dead backend says what to do."""
    ended = configured.melodi("doctor", "--json")
    assert ended.code == 0, ended.stdout
    found = json.loads(ended.stdout)
    meters = {one["name"]: one for one in found["collectors"]}
    assert meters["simulated"]["state"] == "ok"
    assert meters["simulated"]["refresh_seconds"] == pytest.approx(0.1, abs=0.03)
    assert meters["simulated"]["domains"][0]["moving"] is True
    backends = {one["name"]: one for one in found["backends"]}
    assert backends["sim"]["reachable"]
    assert backends["sim"]["version"]
    assert not backends["down"]["reachable"]
    assert "start it" in backends["down"]["error"]


def test_config_show_tells_value_and_source(shell: Shell) -> None:
    """Default, file and environment; a password is not shown."""
    (shell.folder / "melodi.toml").write_text('[sampling]\nrapl_period = "200ms"\n')
    url = "postgresql+psycopg://me:secret@db/melodi"
    ended = shell.melodi("config", "show", "--json", MELODI_DATABASE__URL=url)
    rows = {one["setting"]: one for one in json.loads(ended.stdout)}
    assert rows["sampling.rapl_period"]["value"] == "200ms"
    assert rows["sampling.rapl_period"]["source"] == "melodi.toml"
    assert rows["sampling.nvml_period"]["source"] == "default"
    assert rows["database.url"]["source"] == "MELODI_DATABASE__URL"
    assert "secret" not in ended.stdout


def test_db_upgrade_makes_the_tables_and_may_be_repeated(shell: Shell) -> None:
    """The second time it finds nothing to do."""
    for _ in range(2):
        ended = shell.melodi("db", "upgrade")
        assert ended.code == 0, ended.stderr
    assert (shell.folder / "data" / "melodi" / "melodi.db").exists()
    empty = json.loads(shell.melodi("requests", "--json").stdout)
    assert empty == {"items": [], "next_cursor": None}


def test_serve_answers_and_ends_cleanly_on_sigterm(configured: Shell) -> None:
    """Start, answer, stop with exit code 0."""
    with (configured.folder / "melodi.toml").open("a") as file:
        file.write('\n[api]\nlisten = "127.0.0.1:0"\n')
    process = configured.start("serve")
    try:
        (url,) = urls_said(process, "api")

        def booked() -> list[object]:
            with urllib.request.urlopen(f"{url}/v1/ledger", timeout=PATIENCE_SECONDS) as answer:
                return json.load(answer)["items"]

        wait_for(booked)
        process.send_signal(signal.SIGTERM)
        _, talk = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0
    assert is_clear(talk)
