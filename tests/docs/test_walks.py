"""A reader who does what a page says ends where it says, with a simulator for a server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT, DocPage, reader_of
from postgres import postgres_server

from melodi.simulator.launch import RunningSimulator, simulator_in_thread

DOCS = ROOT / "docs"


@pytest.fixture
def ollama() -> Iterator[RunningSimulator]:
    with simulator_in_thread("ollama") as one:
        yield one


@pytest.fixture
def vllm() -> Iterator[RunningSimulator]:
    with simulator_in_thread("vllm") as one:
        yield one


def test_the_quickstart_ends_with_records(tmp_path: Path, ollama: RunningSimulator) -> None:
    """The doctor finds the server; a prompt through the gateway, its record, and a run of three."""
    page = DocPage(DOCS / "quickstart.md")
    printed = reader_of(page, tmp_path, simulator_url=ollama.url).follow()
    assert "models: simulated" in printed["melodi doctor"]
    assert "simulated" in printed["melodi requests --limit 1"]
    (record,) = json.loads(printed['curl "http://127.0.0.1:8340/v1/requests?limit=1"'])["items"]
    assert record["backend"] == "ollama"
    run = next(text for line, text in printed.items() if line.startswith("melodi run"))
    assert run.count(" ok ") == 3


def test_the_page_on_ollama_ends_with_a_record(tmp_path: Path, ollama: RunningSimulator) -> None:
    """A chat through the gateway is recorded under its backend."""
    page = DocPage(DOCS / "how-to" / "ollama.md")
    printed = reader_of(page, tmp_path, simulator_url=ollama.url).follow()
    assert "simulated" in printed["melodi requests --backend ollama"]


def test_the_page_on_vllm_ends_with_a_record(tmp_path: Path, vllm: RunningSimulator) -> None:
    """A client of the OpenAI library with another base URL, and nothing else changed."""
    page = DocPage(DOCS / "how-to" / "vllm.md")
    printed = reader_of(page, tmp_path, simulator_url=vllm.url).follow()
    program = next(text for kind, text in page.blocks if kind == "python")
    assert int(printed[program]) > 0
    assert "simulated" in printed["melodi requests --backend vllm"]


def test_the_page_on_energy_in_answers_prints_joules(
    tmp_path: Path, ollama: RunningSimulator
) -> None:
    """By curl in the body, the headers and a comment; by both libraries as a number."""
    page = DocPage(DOCS / "how-to" / "energy-in-answers.md")
    printed = reader_of(page, tmp_path, simulator_url=ollama.url).follow()
    plain, streamed = (text for line, text in printed.items() if line.startswith("curl"))
    head, _, body = plain.replace("\r", "").partition("\n\n")
    told = json.loads(body)["energy"]
    assert told["energy_joules"] > 0
    assert f"x-energy-joules: {told['energy_joules']}" in head.lower()
    assert "\n: energy {" in streamed
    openai, ollama_library = (printed[text] for kind, text in page.blocks if kind == "python")
    joules, quality = openai.split()
    assert float(joules) > 0
    assert quality in ("measured", "interpolated", "sub_sensor")
    assert float(ollama_library) > 0


def test_the_page_on_commands_ends_with_joules(tmp_path: Path, ollama: RunningSimulator) -> None:
    """A table, JSON with the label, and joules per sample."""
    page = DocPage(DOCS / "how-to" / "measure-a-command.md")
    printed = reader_of(page, tmp_path, simulator_url=ollama.url).follow()
    table, document, per_sample = printed.values()
    assert "mean watts" in table
    assert json.loads(document)["joules"] > 0
    assert json.loads(document)["labels"] == {"step": "warmup"}
    assert "J per sample" in per_sample


def test_the_page_on_postgres_ends_with_tables(tmp_path: Path, ollama: RunningSimulator) -> None:
    """The daemon starts on a real Postgres, its tables answer, and no SQLite file is made."""
    page = DocPage(DOCS / "how-to" / "postgres.md")
    with postgres_server() as server:
        url = {"MELODI_DATABASE__URL": server.create()}
        reader = reader_of(page, tmp_path, simulator_url=ollama.url, **url)
        reader.follow()
        listed = reader.shell.melodi("requests", "--json", **url)
    assert json.loads(listed.stdout) == {"items": [], "next_cursor": None}
    assert not list(tmp_path.rglob("*.db"))
