"""The README's commands work for somebody who has only the README."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Shell, is_clear, urls_said
from pages import free_address
from waiting import PATIENCE_SECONDS, wait_for
from warm import MELODI

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
SHELL_LINES = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
SERVER = "127.0.0.1:11434"
GATEWAY = "127.0.0.1:11435"
API = "127.0.0.1:8340"


@pytest.fixture
def addresses() -> dict[str, str]:
    """The README's ports, and free ones to use in their stead."""
    return {fixed: free_address() for fixed in (SERVER, GATEWAY, API)}


def moved(text: str, addresses: dict[str, str]) -> str:
    for fixed, free in addresses.items():
        text = text.replace(fixed, free)
    return text.replace(".venv/bin/melodi", str(MELODI)).replace("llama3.2", "simulated")


@pytest.fixture
def newcomer(tmp_path: Path, addresses: dict[str, str]) -> Iterator[Shell]:
    """A folder with the README's melodi.toml, and the simulator in place of an Ollama."""
    toml = next(text for kind, text in BLOCKS if kind == "toml")
    (tmp_path / "melodi.toml").write_text(
        moved(toml, addresses) + f'\n[api]\nlisten = "{addresses[API]}"\n'
    )
    shell = Shell(tmp_path)
    port = addresses[SERVER].rpartition(":")[2]
    simulator = shell.start("simulate", "--kind", "ollama", "--port", port)
    try:
        assert next(line for line in simulator.stderr if "http://" in line)
        yield shell
    finally:
        simulator.terminate()
        simulator.communicate(timeout=PATIENCE_SECONDS)


def sh(line: str, shell: Shell) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", line],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    """`make demo` and `make test`; `make` alone lists them with what they do."""
    assert SHELL_LINES[:2] == ["make demo", "make test"]
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("install", "demo", "test", "check", "fix", "bench", "test-engines"):
        assert re.search(rf"^make {target}\s+\w", listed, re.MULTILINE)


def test_the_shown_table_is_what_the_demo_prints(tmp_path: Path) -> None:
    """Same columns, same prompts, same token counts; joules may differ a little."""
    ended = Shell(tmp_path).melodi("demo", "--exit")
    console = next(text for kind, text in BLOCKS if kind == "console")
    _, headings, _, *rows = console.splitlines()
    printed = {line.split("  ")[0]: line.split() for line in ended.stdout.splitlines()}
    assert printed[" prompt"] == headings.split()
    for line in rows[:4]:
        words = line.split()
        at = next(k for k, word in enumerate(words) if word.isdigit())
        assert printed[line.split("  ")[0]][at : at + 2] == words[at : at + 2]
    for line in rows[4:]:
        assert line.split()[2] in ended.stdout


def test_a_prompt_set_runs_against_the_configured_backend(
    newcomer: Shell, addresses: dict[str, str]
) -> None:
    """`melodi doctor`, `melodi run`, `melodi requests` as they stand there."""
    commands = [moved(line, addresses) for line in SHELL_LINES if "venv/bin/melodi" in line]
    doctor, run, requests, serve = commands
    assert "serve" in serve
    assert "ollama" in sh(doctor, newcomer).stdout
    ran = sh(run, newcomer)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("ok") >= 12
    listed = sh(requests, newcomer)
    assert listed.returncode == 0
    assert listed.stdout.count("simulated") >= 12
    assert is_clear(ran.stderr + "x")


def test_a_client_that_only_changed_its_address_is_recorded(
    newcomer: Shell, addresses: dict[str, str]
) -> None:
    """`melodi serve`, a prompt through the gateway, and the `curl` that asks for its record."""
    curl = next(moved(line, addresses) for line in SHELL_LINES if line.startswith("curl"))
    daemon = newcomer.start("serve")
    try:
        urls = [f"http://{addresses[name]}" for name in (API, GATEWAY)]
        assert urls_said(daemon, "api", "gateway") == urls
        body = json.dumps({"model": "simulated", "prompt": "Why is the sky blue?"}).encode()
        url = f"http://{addresses[GATEWAY]}/api/generate"
        with urllib.request.urlopen(
            urllib.request.Request(url, data=body), timeout=PATIENCE_SECONDS
        ) as answer:
            assert b'"done":true' in answer.read()
        assert shutil.which("curl"), "curl is needed: apt install curl"
        wait_for(lambda: json.loads(sh(curl, newcomer).stdout)["items"])
        (record,) = json.loads(sh(curl, newcomer).stdout)["items"]
        assert record["model"] == "simulated"
        assert record["output_tokens"] > 0
    finally:
        daemon.terminate()
        daemon.communicate(timeout=PATIENCE_SECONDS)


def test_its_links_lead_somewhere() -> None:
    """Files of this repository."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
