"""The pages written by hand: short, with links that lead somewhere and commands that exist."""

import tomllib
from pathlib import Path

import pytest
import typer
from pages import ROOT, DocPage, melodi_words

from melodi.cli.main import app
from melodi.config import Settings

DOCS = ROOT / "docs"
WRITTEN = [DOCS / "README.md", DOCS / "quickstart.md", *sorted((DOCS / "how-to").glob("*.md"))]
PAGES = [DocPage(path) for path in WRITTEN]
OTHERS = {"curl", "sudo", "pip", "python3", ".", "ollama", "vllm", "systemctl", "journalctl"}
OTHERS |= {"rm", "benchmarks/gpu/run.sh", "docker", "cat"}
"""Programs that the pages use beside MELODI."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.name)


@each_page
def test_a_page_is_a_page(page: DocPage) -> None:
    """One heading of the first order, and no longer than a reader's patience."""
    headings = [line for line in page.text.splitlines() if line.startswith("# ")]
    assert page.text.splitlines()[0] in headings
    assert len(page.text.split()) <= 400
    assert len(page.text.splitlines()) <= 75


@each_page
def test_links_lead_somewhere(page: DocPage) -> None:
    """Files of this repository, from where the page is."""
    for target in page.links:
        assert (page.path.parent / target).exists(), target


def test_the_index_leads_to_every_page() -> None:
    """No page is left out."""
    linked = {(DOCS / target).resolve() for target in PAGES[0].links}
    reference = set((DOCS / "reference").glob("*.md"))
    assert {*WRITTEN[1:], *reference, DOCS / "glossary.md"} <= linked


def first_word(line: str) -> str:
    return next(word for word in line.split() if "=" not in word)


@each_page
def test_commands_exist(page: DocPage) -> None:
    """Every verb and option of `melodi` is one that it has; every other program is known."""
    for line in page.commands:
        words = melodi_words(line)
        if words is None:
            assert first_word(line) in OTHERS, line
            continue
        verb = typer.main.get_command(app)
        while words and words[0] in getattr(verb, "commands", {}):
            verb = verb.commands[words.pop(0)]
        assert not hasattr(verb, "commands"), line
        verb.make_context(line, words)


@each_page
def test_settings_are_accepted(page: DocPage) -> None:
    """What a page puts into melodi.toml are settings that exist, with values that they take."""
    written = tomllib.loads(page.settings)
    assert Settings(**written).model_fields_set >= written.keys()


def test_the_unit_starts_the_daemon_with_one_capability() -> None:
    """It runs a verb that exists, and has nothing that hides GPUs or takes the capability away."""
    lines = (ROOT / "docker" / "melodi.service").read_text().splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    words = unit["ExecStart"].split()
    assert Path(words[0]).name == "melodi"
    root = typer.main.get_command(app)
    root.commands[words[1]].make_context("serve", words[2:])
    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"] == "CAP_DAC_READ_SEARCH"
    hiding = ("PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "PrivateUsers")
    hiding += ("ProtectProc", "ProcSubset", "MemoryDenyWriteExecute", "PrivateNetwork")
    assert not set(hiding) & unit.keys()
