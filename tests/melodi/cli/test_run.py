"""`melodi run` gives one record a prompt; what goes wrong is said and does not stop the rest."""

import json
from pathlib import Path

import aiohttp
import pytest
from command import Shell, is_clear

from melodi.simulator.launch import RunningSimulator

TO_SIM = ("--backend", "sim", "--model", "simulated", "--max-tokens", "20")


def test_a_run_prints_a_record_for_every_prompt_and_stores_them(configured: Shell) -> None:
    """Six prompts, three at a time; `melodi requests` shows the same records afterwards."""
    ran = configured.melodi(
        "run", "--prompts", "melodi-60", "--limit", "6", "--concurrency", "3", *TO_SIM, "--json"
    )
    assert ran.code == 0, ran.stderr
    items = json.loads(ran.stdout)["items"]
    assert len(items) == 6
    assert len({one["task"] for one in items}) == 6
    for one in items:
        assert one["status"] == "ok"
        assert one["campaign"] == "melodi-60"
        assert one["prompt"]
        assert one["response"]
        assert one["energy_joules"] > 0
        assert one["origin"] == "simulator"
        assert not one["provisional"]
    listed = configured.melodi("requests", "--json", "--limit", "4")
    page = json.loads(listed.stdout)
    by_id = {one["id"]: one for one in items}
    assert len(page["items"]) == 4
    assert page["next_cursor"]
    for one in page["items"]:
        assert one == by_id[one["id"]]
    table = configured.melodi("requests", "--task", "qa")
    assert "qa" in table.stdout
    assert "extraction" not in table.stdout


def test_a_broken_line_is_named_and_the_other_prompts_go_on(configured: Shell) -> None:
    """Two good lines are sent, the broken one is said with its number, the exit code is not 0."""
    lines = ['{"prompt": "one"}', '{"prompt": ', '{"prompt": "three"}']
    (configured.folder / "mine.jsonl").write_text("\n".join(lines))
    ran = configured.melodi("run", "--prompts", "mine.jsonl", *TO_SIM, "--json")
    assert ran.code == 1
    assert len(json.loads(ran.stdout)["items"]) == 2
    assert "line 2 is left out" in ran.stderr
    assert is_clear(ran.stderr)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backend", "nowhere", "--model", "m"), "no backend is called 'nowhere' (known: down"),
        (("--backend", "sim"), "Missing option"),
        (("--backend", "sim", "--model", "m", "--prompts", "melody-60"), "melodi-60"),
        (("--backend", "sim", "--model", "m", "--prompts", "no.jsonl"), "neither a bundled"),
        (("--backend", "sim", "--model", "m", "--config", "no.toml"), "does not exist"),
    ],
)
def test_a_mistake_is_explained_without_a_traceback(
    configured: Shell, words: tuple[str, ...], message: str
) -> None:
    """Unknown backend, missing option, misspelt set, missing files."""
    prompts = () if "--prompts" in words else ("--prompts", "melodi-60")
    ended = configured.melodi("run", *prompts, *words)
    assert ended.code != 0
    assert message in ended.stderr
    assert is_clear(ended.stderr)
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backend", "down", "--model", "m"), "is not reachable: start it or mend its url"),
        (
            ("--backend", "sim", "--model", "simulate"),
            "has no model 'simulate' (did you mean simulated?)",
        ),
        (("--backend", "sim", "--model", "nobody"), "has no model 'nobody'; it has simulated"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_sent(
    configured: Shell, words: tuple[str, ...], message: str
) -> None:
    """A backend that is down, a model that it does not have: one line, and no records."""
    ended = configured.melodi("run", "--prompts", "melodi-60", "--limit", "2", *words, "--json")
    assert ended.code == 1
    assert message in ended.stderr
    assert is_clear(ended.stderr)
    assert ended.stdout == ""
    assert json.loads(configured.melodi("requests", "--json").stdout)["items"] == []


def test_a_backend_that_refuses_leaves_error_records(configured: Shell) -> None:
    """A server that lists nothing is asked; what it refuses is said once, recorded each time."""
    words = ("--backend", "other", "--model", "nobody")
    ended = configured.melodi("run", "--prompts", "melodi-60", "--limit", "2", *words, "--json")
    assert ended.code == 1
    assert "2 of 2 failed" in ended.stderr
    assert is_clear(ended.stderr)
    items = json.loads(ended.stdout)["items"]
    assert [one["status"] for one in items] == ["error", "error"]
    assert all("nobody" in one["error"] for one in items)
    assert all(one["energy_joules"] is None for one in items)


async def test_a_backend_that_dies_mid_stream_costs_one_record_its_end(
    configured: Shell, simulator: RunningSimulator
) -> None:
    """The cut one is incomplete, with energy; the others are whole."""
    died = {"kind": "die_mid_stream", "after_tokens": 2, "count": 1}
    async with aiohttp.ClientSession(simulator.url) as session:
        await (await session.post("/simulator/faults", json=died)).read()
    ended = configured.melodi("run", "--prompts", "melodi-60", "--limit", "3", *TO_SIM, "--json")
    assert ended.code == 1
    assert is_clear(ended.stderr)
    items = json.loads(ended.stdout)["items"]
    assert sorted(one["status"] for one in items) == ["incomplete", "ok", "ok"]
    assert all(one["energy_joules"] > 0 for one in items)


def test_an_unwritable_database_folder_is_explained(configured: Shell) -> None:
    """The message names the folder and the setting."""
    blocked = configured.folder / "file"
    blocked.write_text("not a folder")
    url = f"sqlite:///{blocked / 'deeper' / 'melodi.db'}"
    ended = configured.melodi(
        "run", "--prompts", "melodi-60", "--limit", "1", *TO_SIM, MELODI_DATABASE__URL=url
    )
    assert ended.code == 1
    assert str(blocked) in ended.stderr
    assert "MELODI_DATABASE__URL" in ended.stderr
    assert is_clear(ended.stderr)


def test_an_unreadable_config_is_explained(shell: Shell) -> None:
    """A folder where a file should be, and a file that is no TOML."""
    broken = Path(shell.folder / "melodi.toml")
    broken.write_text("[api\n")
    for words in (("serve",), ("doctor",), ("config", "show"), ("requests",)):
        ended = shell.melodi(*words)
        assert ended.code == 2
        assert "is no TOML" in ended.stderr
        assert is_clear(ended.stderr)
